"""The samplers, as a table: what each is for and how much fresh noise it adds; `schedulers/` has their steps."""

from __future__ import annotations

from dataclasses import dataclass

from dynamicrafter.schema import Choice, OptionError, Range

Sampler = str  # a key of SAMPLERS
ETA = Range(0, 1)  # deterministic to as much fresh noise as DDPM would draw
DDIM, DPM, DPM_SDE, UNIPC = "ddim", "dpm++", "dpm++sde", "unipc"


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerEntry:
    """One sampler.

    Attributes:
        summary: what it is good for.
        solver: module:class of its steps, a new one for each run; see `schedulers.solvers.Solver`.
        adds_noise: whether a step may add fresh noise.
        eta: the share of it where none is asked for; None for the preset's.
        multistep: whether it looks back, and needs timesteps whose levels differ in λ by a like amount.
    """

    name: Sampler
    summary: str
    solver: str
    adds_noise: bool
    eta: float | None
    multistep: bool = True


SAMPLERS: dict[Sampler, SamplerEntry] = {
    entry.name: entry
    for entry in (
        SamplerEntry(
            name=DDIM,
            summary="as published",
            solver="dynamicrafter.schedulers.solvers:DDIMSolver",
            adds_noise=True,
            eta=None,
            multistep=False,
        ),
        SamplerEntry(
            name=DPM,
            summary="comes as near in fewer steps",
            solver="dynamicrafter.schedulers.multistep:DPMSolver",
            adds_noise=False,
            eta=0.0,
        ),
        SamplerEntry(
            name=DPM_SDE,
            summary="the same with fresh noise",
            solver="dynamicrafter.schedulers.multistep:DPMSolver",
            adds_noise=True,
            eta=1.0,
        ),
        SamplerEntry(
            name=UNIPC,
            summary="comes nearest in few steps",
            solver="dynamicrafter.schedulers.multistep:UniPC",
            adds_noise=False,
            eta=0.0,
        ),
    )
}


SAMPLER = Choice(lambda: tuple(SAMPLERS))


def get_sampler(name: str) -> SamplerEntry:
    """Look a sampler up by its name.

    Raises:
        OptionError: there is no such sampler.
    """
    if name not in SAMPLERS:
        raise OptionError("sampler", f"must be one of {', '.join(SAMPLERS)}, got {name!r}.")
    return SAMPLERS[name]


def check_eta(eta: float, sampler: Sampler = DDIM) -> None:
    """Raises OptionError where the sampler could not take a step with this share of fresh noise."""
    ETA.check("eta", eta)
    if eta > 0 and not get_sampler(sampler).adds_noise:
        noisy = " or ".join(entry.name for entry in SAMPLERS.values() if entry.adds_noise)
        raise OptionError(
            "eta",
            f"must be 0 with the sampler {sampler}, which adds no noise, got {eta}; leave it out, or take the sampler "
            f"{noisy}.",
        )

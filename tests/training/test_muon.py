import copy

import torch
from torch import nn

from dynamicrafter.training.muon import Muon, muon_groups, orthogonalised


def test_orthogonalising_brings_every_singular_value_near_one() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((3, 16, 64), (2, 64, 16), (1, 32, 32)):
        values = torch.linalg.svdvals(orthogonalised(torch.randn(shape, generator=generator)))
        assert values.min() > 0.3
        assert values.max() < 1.3


def test_orthogonalising_keeps_the_directions() -> None:
    matrix = torch.diag(torch.tensor([4.0, 1.0, 0.5, 2.0]))[None]
    result = orthogonalised(matrix)[0]
    off_diagonal = result - torch.diag(torch.diag(result))
    assert off_diagonal.abs().max() < 0.02
    assert (torch.diag(result) > 0.5).all()


def test_the_vectors_step_as_adamw_does() -> None:
    ours, theirs = (nn.Parameter(torch.linspace(-1, 1, 7)) for _ in range(2))
    muon = Muon([{"params": [ours], "orthogonal": False}], lr=0.01, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.1)
    adamw = torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.1)
    for step in range(5):
        for parameter, optimizer in ((ours, muon), (theirs, adamw)):
            parameter.grad = torch.sin(torch.arange(7) + step)
            optimizer.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_matrix_moves_by_the_rate_in_every_direction() -> None:
    weight = nn.Parameter(torch.zeros(8, 8))
    weight.grad = torch.randn(8, 8, generator=torch.Generator().manual_seed(1))
    Muon([{"params": [weight], "orthogonal": True}], matrix_lr=0.1).step()
    values = torch.linalg.svdvals(weight.detach())
    assert values.max() < 0.13
    assert values.min() > 0.03


def test_tables_and_vectors_are_kept_from_orthogonal_steps() -> None:
    network = nn.ModuleDict({"embedding": nn.Embedding(5, 4), "inner": nn.Linear(4, 4)})
    orthogonal, others = muon_groups({"net": network}, tables=("embedding",))
    assert [tuple(p.shape) for p in orthogonal["params"]] == [(4, 4)]
    assert sorted(tuple(p.shape) for p in others["params"]) == [(4,), (5, 4)]


def test_a_run_goes_on_from_its_saved_state_as_if_never_stopped() -> None:
    def steps(weight: nn.Parameter, optimizer: Muon, numbers: range) -> None:
        for number in numbers:
            weight.grad = weight.detach() * (number + 1) + torch.arange(16.0).view(4, 4)
            optimizer.step()

    def begin(start: torch.Tensor) -> tuple[nn.Parameter, Muon]:
        weight = nn.Parameter(start.clone())
        return weight, Muon([{"params": [weight], "orthogonal": True}], matrix_lr=0.05)

    unbroken = begin(torch.eye(4))
    steps(*unbroken, range(4))
    weight, optimizer = begin(torch.eye(4))
    steps(weight, optimizer, range(2))
    resumed, fresh = begin(weight.detach()), begin(weight.detach())
    resumed[1].load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(*resumed, range(2, 4))
    steps(*fresh, range(2, 4))
    assert torch.equal(resumed[0], unbroken[0])
    assert not torch.equal(fresh[0], unbroken[0])  # the momentum counts

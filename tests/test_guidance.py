import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamicrafter.errors import InputError
from dynamicrafter.guidance import PassPlan, combine, plan_passes, rescale_guidance

NAMES = ("unconditional", "image", "conditional")
scales = st.floats(0, 20) | st.sampled_from([0.0, 1.0, 7.5])
rescales = st.floats(0, 1) | st.sampled_from([0.0, 1.0])


def outputs_of(seed: int = 0, batch: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(batch, 4, 3, 5, 6, generator=generator, dtype=torch.float64) for name in NAMES}


def needed(plan: PassPlan, outputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: outputs[name] for name in plan.passes}


def rescaled_by_hand(guided: torch.Tensor, conditional: torch.Tensor, rescale: float) -> torch.Tensor:
    rows = [rescale * g * (c.std() / g.std()) + (1 - rescale) * g for g, c in zip(guided, conditional, strict=True)]
    return torch.stack(rows)


@settings(deadline=None)
@given(guidance=scales, rescale=rescales)
def test_one_scale_gives_the_textbook_guidance(guidance, rescale):
    outputs = outputs_of()
    u, c = outputs["unconditional"], outputs["conditional"]
    plan = plan_passes(guidance, rescale=rescale)
    expected = rescaled_by_hand(u + guidance * (c - u), c, rescale)
    torch.testing.assert_close(combine(needed(plan, outputs), plan), expected, rtol=1e-9, atol=1e-9)


@settings(deadline=None)
@given(guidance=scales, image_guidance=scales, rescale=rescales)
def test_two_scales_give_the_textbook_guidance(guidance, image_guidance, rescale):
    outputs = outputs_of()
    u, i, c = (outputs[name] for name in NAMES)
    plan = plan_passes(guidance, image_guidance, rescale=rescale)
    expected = rescaled_by_hand(u + image_guidance * (i - u) + guidance * (c - i), c, rescale)
    torch.testing.assert_close(combine(needed(plan, outputs), plan), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("guidance", "image_guidance", "passes"),
    [
        (7.5, None, ("unconditional", "conditional")),
        (1.0, None, ("conditional",)),
        (0.0, None, ("unconditional",)),
        (7.5, 3.0, ("unconditional", "image", "conditional")),
        (1.0, 1.0, ("conditional",)),
        (7.5, 1.0, ("image", "conditional")),
        (1.0, 3.0, ("unconditional", "image", "conditional")),
        (3.0, 3.0, ("unconditional", "conditional")),
        (0.0, 3.0, ("unconditional", "image")),
        (0.0, 1.0, ("image",)),
        (0.0, 0.0, ("unconditional",)),
    ],
)
def test_passes_of_no_weight_are_not_asked_for(guidance, image_guidance, passes):
    assert plan_passes(guidance, image_guidance).passes == passes


@settings(deadline=None)
@given(guidance=scales, image_guidance=scales | st.none(), rescale=rescales)
def test_weights_add_up_to_one_and_passes_keep_their_order(guidance, image_guidance, rescale):
    plan = plan_passes(guidance, image_guidance, rescale=rescale)
    assert sum(plan.weights) == pytest.approx(1)
    assert plan.passes == tuple(name for name in NAMES if name in plan.passes)
    assert len(plan.weights) == len(plan.passes)
    for name, weight in zip(plan.passes, plan.weights, strict=True):
        assert weight != 0 or (name == "conditional" and plan.rescale > 0)


def test_rescaling_needs_the_conditional_pass_even_where_it_has_no_weight():
    plan = plan_passes(0.0, rescale=0.7)
    assert plan == PassPlan(passes=("unconditional", "conditional"), weights=(1.0, 0.0), rescale=0.7)


def test_without_guidance_the_conditional_output_comes_back_unchanged():
    plan = plan_passes(1.0, rescale=0.7)
    assert plan == PassPlan(passes=("conditional",), weights=(1.0,), rescale=0.0)
    outputs = outputs_of()
    assert torch.equal(combine(needed(plan, outputs), plan), outputs["conditional"])


@settings(deadline=None)
@given(factor=st.floats(0.1, 10), guidance=scales, image_guidance=scales, rescale=rescales)
def test_guidance_scales_with_the_outputs(factor, guidance, image_guidance, rescale):
    plan, outputs = plan_passes(guidance, image_guidance, rescale=rescale), outputs_of()
    larger = {name: factor * output for name, output in outputs.items()}
    torch.testing.assert_close(combine(larger, plan), factor * combine(outputs, plan), rtol=1e-9, atol=1e-9)


@settings(deadline=None)
@given(guidance=scales, image_guidance=scales, rescale=rescales)
def test_agreeing_passes_are_left_as_they_are(guidance, image_guidance, rescale):
    plan, same = plan_passes(guidance, image_guidance, rescale=rescale), outputs_of()["image"]
    guided = combine(dict.fromkeys(NAMES, same), plan)
    torch.testing.assert_close(guided, same, rtol=1e-9, atol=1e-9)


def test_full_rescaling_gives_each_sample_the_contrast_of_its_conditional_pass():
    outputs = outputs_of(batch=3)
    conditional = outputs["conditional"] * torch.tensor([1.0, 2.0, 5.0]).reshape(3, 1, 1, 1, 1)
    rescaled = rescale_guidance(outputs["image"], conditional, 1.0)
    torch.testing.assert_close(rescaled.flatten(1).std(1), conditional.flatten(1).std(1))


def test_a_samples_guidance_does_not_depend_on_its_batch():
    plan, outputs = plan_passes(7.5, 3.0, rescale=0.7), outputs_of(batch=3)
    alone = combine({name: output[1:2] for name, output in outputs.items()}, plan)
    torch.testing.assert_close(combine(outputs, plan)[1:2], alone)


def test_half_precision_outputs_are_combined_in_float32():
    plan = plan_passes(7.5, 3.0, rescale=0.7)
    halves = {name: output.bfloat16() for name, output in outputs_of().items()}
    guided = combine(halves, plan)
    assert guided.dtype == torch.float32
    exact = combine({name: output.double() for name, output in halves.items()}, plan)
    torch.testing.assert_close(guided.double(), exact, rtol=1e-5, atol=1e-5)


def test_outputs_are_left_as_they_were():
    plan, outputs = plan_passes(7.5, 3.0, rescale=0.7), outputs_of()
    combine(outputs, plan)
    assert all(torch.equal(outputs[name], outputs_of()[name]) for name in NAMES)


@pytest.mark.parametrize("wrong", [-0.5, float("nan"), float("inf")])
def test_scales_that_are_negative_or_not_finite_are_refused(wrong):
    with pytest.raises(InputError, match=r"^guidance_scale must be a number of 0 or more, got .*; try 7.5"):
        plan_passes(wrong)
    with pytest.raises(InputError, match=r"^image_guidance_scale must be a number of 0 or more, got .*; try 7.5"):
        plan_passes(7.5, wrong)


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_a_rescale_outside_its_range_is_refused(wrong):
    with pytest.raises(InputError, match=r"guidance_rescale must be between 0 and 1, got .*; try 0.7"):
        plan_passes(7.5, rescale=wrong)


def test_within_its_interval_a_plan_is_itself_and_outside_the_conditional_pass_alone():
    plan = plan_passes(7.5, 3.0, rescale=0.7, interval=(200, 800))
    assert all(plan.at(timestep) is plan for timestep in (200, 500, 800))
    for timestep in (0, 199, 801, 999):
        assert plan.at(timestep) == plan_passes(1.0)


def test_a_plan_without_a_conditional_pass_makes_one_for_the_steps_outside_its_interval():
    assert plan_passes(0.0).passes == ("unconditional",)
    plan = plan_passes(0.0, interval=(200, 800))
    assert plan.passes == ("unconditional", "conditional")
    assert plan.weights == (1.0, 0.0)


@pytest.mark.parametrize("interval", [(-1, 5), (5, 1000), (6, 5)])
def test_an_interval_that_is_none_is_refused(interval):
    with pytest.raises(
        InputError, match="guidance_interval must be two timesteps from 0 to 999, the lower first, such as 200-800, got"
    ):
        plan_passes(7.5, interval=interval)

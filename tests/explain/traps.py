"""Ways in which explanations go wrong, each as something that must be true of any tool.

`test_traps.py` holds evalcam to all of them; `tests/benchmarks/traps.py` puts the installed peers to the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from tests.benchmarks.explanation_peers import Tool
from tests.explain import traps_maps as maps
from tests.explain import traps_pictures as pictures
from tests.explain import traps_state as state

Check = Callable[[Tool], None]


@dataclass(frozen=True)
class Trap:
    """One of them."""

    name: str
    must: str
    check: Check
    """Raises AssertionError with what the tool does instead; any other exception is one that the tool raised."""
    needs: str = "gradcam"
    """A method without which a tool is not asked."""
    thorough: Check | None = None
    """The same at length, for the script."""

    def concerns(self, tool: Tool) -> bool:
        """Whether the tool offers what is asked."""
        if self.needs == "overlay":
            return tool.overlay is not None
        return self.needs in tool.maps


_SAME = "the map of the model at rest"
_PLAIN = "the map that plain differentiation gives"
_GUIDED = "the same as a ReLU with a gradient of its own"

TRAPS = (
    Trap("fewer classes than images", "refused", state.fewer_classes),
    Trap("class -1", "refused", state.class_below_zero),
    Trap("model in training mode: its map", _SAME, state.predicts_at_rest),
    Trap("model in training mode: the modes", "as before, part by part", partial(state.keeps, state.modes)),
    Trap("model in training mode: batch-norm statistics", "as before", partial(state.keeps, state.buffers)),
    Trap("dropout left on in a model at rest", _SAME, state.dropout_left_on),
    Trap("parameters' .grad", "as before", partial(state.keeps, state.parameter_gradients)),
    Trap("parameters' requires_grad", "as before", partial(state.keeps, state.trainable)),
    Trap("hooks", "none remains", partial(state.keeps, state.hooks)),
    Trap("modules and their in-place flags", "the same objects", partial(state.keeps, state.parts)),
    Trap("frozen model", "explained", state.frozen),
    Trap("inside torch.no_grad()", "explained, and the mode kept", partial(state.within, torch.no_grad)),
    Trap("inside torch.inference_mode()", "explained, and the mode kept", partial(state.within, torch.inference_mode)),
    Trap("model that turns gradients off itself", "explained", state.turns_gradients_off),
    Trap("images that ask for gradients, or do not", "as before, without .grad", state.leaves_images),
    Trap("model that normalises its input in place", "the caller's images as before",
         state.model_that_writes_into_its_input),
    Trap("random numbers", "none drawn", state.leaves_random_numbers),
    Trap("exception in the model", "passes through, nothing remains",
         partial(state.exception_of_the_model, ZeroDivisionError)),
    Trap("IndexError in the model", "passes through, nothing remains",
         partial(state.exception_of_the_model, IndexError)),
    Trap("exception in the target", "passes through, nothing remains", state.exception_of_the_target),
    Trap("the user's own hook on the layer", "runs and remains", state.own_hooks),
    Trap("repeated explanations", "no growth of resident memory above 5 MB", partial(state.repeats, 60),
         thorough=partial(state.repeats, 1000)),
    Trap("layer that runs twice", "refused", state.layer_that_runs_twice),
    Trap("layer that does not run", "refused", state.layer_that_does_not_run),
    Trap("layer that the score does not depend on", "refused", state.layer_beside_the_way),
    Trap("integer output", "refused", state.integer_output),
    Trap("several outputs", "refused without a target for them", state.several_outputs),
    Trap("second ReLU after the layer", _PLAIN, partial(maps.right_after, maps.second_relu)),
    Trap("second ReLU and a head with empty rows, all classes", _PLAIN, maps.all_classes_of_a_sparse_head,
         needs="all classes"),
    Trap("functional in-place ReLU after the layer (DenseNet)", _PLAIN,
         partial(maps.written_over, functional_relu=True)),
    Trap("other in-place operation after the layer", _PLAIN, partial(maps.written_over, functional_relu=False)),
    Trap("shortcut added in place (ResNet's last batch norm)", _PLAIN, maps.added_to),
    Trap("head without pooling (VGG)", _PLAIN, maps.no_pooling),
    Trap("deeper head after pooling", _PLAIN, maps.deeper_head),
    Trap("convolution as head (SqueezeNet)", _PLAIN, maps.convolution_as_head),
    Trap("logits scaled in place", _PLAIN, partial(maps.right_after, maps.scaled_in_place)),
    Trap("Grad-CAM++ at small gradients", "the formula, to 1e-5", maps.exact_grad_cam_pp, needs="gradcam++"),
    Trap("XGradCAM of small features", "the formula: a layer has no units", maps.units_of_the_layer, needs="xgradcam"),
    Trap("XGradCAM of channels that are 0", "without NaN", maps.dead_channels, needs="xgradcam"),
    Trap("NaN in one image", "in its map only, and not hidden", maps.broken_image),
    Trap("bfloat16 model", "a map that numpy can read", partial(maps.half_precision, torch.bfloat16)),
    Trap("float16 model", "a map that numpy can read", partial(maps.half_precision, torch.float16)),
    Trap("float64 model", "to 1e-8", maps.double_precision),
    Trap("channels_last", "the same map", maps.channels_last),
    Trap("images that are not square", "rows are rows", maps.not_square),
    Trap("batch of 16 against 16 batches of 1", "equal to 1e-6", maps.one_by_one),
    Trap("score in other units", "the same picture: no epsilon in the normalisation", maps.units_of_the_score),
    Trap("nothing speaks for the class", "a plain picture, no NaN, no exception", maps.nothing_positive),
    Trap("Eigen-CAM: channels in another order", "the same map, of the same sign", maps.channels_in_another_order,
         needs="eigencam"),
    Trap("Ablation-CAM of signed channels", "a channel left out is 0", maps.ablation_of_signed_channels,
         needs="ablationcam"),
    Trap("Ablation-CAM: exception in the model", "no layer stays replaced", state.ablation_exception,
         needs="ablationcam"),
    Trap("Score-CAM: the masks", "on their pixels, then scaled, as in the paper", maps.score_cam_masks,
         needs="scorecam"),
    Trap("guided backpropagation: a whole batch", _GUIDED, maps.guided_batch, needs="guided-backprop"),
    Trap("guided backpropagation: functional ReLU", _GUIDED,
         partial(maps.guided_one_image, functional.relu), needs="guided-backprop"),
    Trap("guided backpropagation: functional ReLU in place", _GUIDED,
         partial(maps.guided_one_image, maps.in_place_function), needs="guided-backprop"),
    Trap("guided backpropagation: one in-place module, used again", _GUIDED,
         partial(maps.guided_one_image, nn.ReLU(inplace=True)), needs="guided-backprop"),
    Trap("guided backpropagation: modules and in-place flags", "the same objects",
         partial(state.guided_keeps, state.parts), needs="guided-backprop"),
    Trap("guided backpropagation: parameters' .grad", "as before",
         partial(state.guided_keeps, state.parameter_gradients), needs="guided-backprop"),
    Trap("guided backpropagation: the images", "do not ask for gradients afterwards", state.guided_leaves_images,
         needs="guided-backprop"),
    Trap("guided backpropagation: exception in the model", "no module stays replaced", state.guided_exception,
         needs="guided-backprop"),
    Trap("map of a crop over the whole photograph", "within a cell of its place", pictures.on_the_right_pixels,
         needs="overlay"),
    Trap("map in another number type", "the same picture", pictures.any_number_type, needs="overlay"),
)  # fmt: skip

"""Every option of a part is typed, bounded, checked and documented."""

import inspect
import typing

from absl.testing import parameterized
import jax.numpy as jnp
import networks

from ctxseg_jax import bounds
from ctxseg_jax import errors
from ctxseg_jax import losses
from ctxseg_jax import schema
from ctxseg_jax.models import layers
from ctxseg_jax.models.backbones import BACKBONES
from ctxseg_jax.models.backbones import efficientnet
from ctxseg_jax.models.backbones import resnet
from ctxseg_jax.models.backbones import vgg
from ctxseg_jax.models.heads import HEADS

# What the network and the training step provide.
GIVEN = ("num_classes", "host", "norm", "dtype", "ignore_label")
MODULES = {
    **{f"head {name}": cls for name, cls in HEADS.items()},
    **{f"backbone {name}": cls for name, cls in BACKBONES.items()},
    "norm": layers.Norm,
}
TARGETS = MODULES | {f"loss {k}": x for k, x in losses.LOSSES.items()}
OPTIONS = [
    (f"{part}: {name}", part, name, option)
    for part, target in TARGETS.items()
    for name, option in schema.options(target).items()
    if name not in GIVEN
]


def excluded(annotation):
  """Returns values that an annotation excludes."""
  args = typing.get_args(annotation)
  if bounds.supports(annotation) and type(None) in args:
    return [x for x in excluded(args[0]) if x is not None]
  values = [object(), None]
  if annotation is not bool and annotation is not str:
    values += ["other", float("nan")]
  if annotation in (bounds.DropoutRate, bounds.Fraction):
    values += [-1.0, 2.0]
  elif annotation in (bounds.PositiveInt, bounds.PositiveFloat):
    values += [0, -1]
  elif annotation is bounds.PositiveInts:
    values += [(), (0,), 1]
  return values


class OptionsTest(parameterized.TestCase):

  @parameterized.named_parameters(*OPTIONS)
  def test_is_typed_and_documented(self, part, name, option):
    self.assertTrue(bounds.supports(option.annotation), option.annotation)
    self.assertNotIn(option.annotation, (int, float, tuple))
    meaning = schema.meanings(TARGETS[part]).get(name, "")
    self.assertGreater(len(meaning.split()), 2, meaning)
    self.assertNotStartsWith(meaning, "See ")
    if option.default is not schema.MISSING:
      bounds.check_value(option.default, option.annotation, name)

  @parameterized.named_parameters(*(x for x in OPTIONS if x[1] in MODULES))
  def test_other_values_are_refused(self, part, name, option):
    target = MODULES[part]
    given = {}
    if "num_classes" in target.__dataclass_fields__:
      given["num_classes"] = 5
    if "host" in target.__dataclass_fields__:
      given["host"] = HEADS["fcn"](num_classes=5)
    target(**given)
    for value in excluded(option.annotation):
      with self.assertRaisesRegex(ValueError, f"^{name}: expected .*, got "):
        target(**given, **{name: value})

  @parameterized.parameters(
      ("resnet", "depth", resnet.STAGE_SIZES),
      ("resnet", "stem", resnet.STEMS),
      ("resnet", "dilation", resnet.DILATIONS),
      ("efficientnet", "variant", efficientnet.VARIANTS),
      ("vgg16", "form", vgg.FORMS),
  )
  def test_the_table_of_a_choice_has_its_rows(self, backbone, name, table):
    annotation = schema.options(BACKBONES[backbone])[name].annotation
    self.assertSequenceEqual(typing.get_args(annotation), list(table))

  def test_every_loss_takes_the_label_to_ignore(self):
    for name, loss in losses.LOSSES.items():
      parameters = inspect.signature(loss).parameters
      self.assertEqual(list(parameters)[1:3], ["labels", "ignore_label"], name)

  def test_a_width_of_a_layer_that_comes_out_as_0_is_named(self):
    head = HEADS["emanet"](num_classes=5, channels=1)
    features = {"stage4": jnp.zeros((1, 4, 4, 8))}
    with self.assertRaisesRegex(ValueError, "channels: .*at least 1, got 0"):
      networks.abstract(head, features)

  @parameterized.parameters(
      (dict(name="fcn"), {}, "model.head: .*no 'stage4', only stem, stage1"),
      (dict(name="pooled"), dict(name="fcn"), "model.aux_head: .*no 'stage4'"),
  )
  def test_a_stage_that_the_backbone_does_not_have_is_named(
      self, head, aux_head, message
  ):
    aux = dict(aux_head=aux_head) if aux_head else {}
    model = networks.build(dict(name="cifar_resnet"), head, **aux)
    with self.assertRaisesRegex(errors.UserError, message):
      networks.abstract(model, (32, 32))

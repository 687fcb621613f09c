"""Loops count as often as they run, and each memory apart."""

from absl.testing import absltest

from ctxseg_jax.planning import program_text

TEXT = """
HloModule jit_step

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%body (state: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %state = (s32[], f32[8,128]{1,0:T(8,128)}) parameter(0)
  %map = f32[8,128]{1,0:T(8,128)} get-tuple-element(%state), index=1
  %sums = f32[8,128]{1,0:T(8,128)} all-reduce(%map), to_apply=%add
  ROOT %out = (s32[], f32[8,128]{1,0:T(8,128)}) tuple(%i, %sums)
}

ENTRY %main (a: bf16[2,100]) -> f32[] {
  %a = bf16[2,100]{1,0:T(8,128)(2,1)} parameter(0)
  %moving = (bf16[2,100]{1,0:T(8,128)S(1)}, bf16[2,100]{1,0:T(8,128)}, \
u32[]{:S(2)}) copy-start(%a)
  %near = bf16[2,100]{1,0:T(8,128)(2,1)S(1)} copy-done(%moving)
  %b = f32[2,100]{1,0:T(8,128)} fusion(%near, %a), kind=kLoop, \
calls=%f, metadata={op_name="jit(step)/net/conv/add"}
  %c = (f32[3]{0}, f32[]) all-reduce-start(%y, %z), channel_id=2
  %d = (f32[3]{0}, f32[]) all-reduce-done(%c)
  %loop = (s32[], f32[8,128]{1,0:T(8,128)}) while(%start), \
condition=%until, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %e = f32[] fusion(%all-reduce.1), kind=kLoop, calls=%g
}
"""


class ProgramTextTest(absltest.TestCase):

  def setUp(self):
    super().setUp()
    self.found = program_text.instructions(TEXT)

  def test_collectives_and_not_their_users_as_often_as_they_run(self):
    self.assertEqual(
        program_text.collectives(self.found),
        {"all-reduce": [(1, 4 * 4), (5, 8 * 128 * 4)]},
    )

  def test_a_copy_into_fast_memory_is_one_reading(self):
    copy = self.found[0]
    self.assertEqual(copy.operation, "copy-start")
    # Tiles of 8 by 128: what is stored, not what is meant.
    self.assertEqual(copy.num_bytes, 8 * 128 * 2)
    self.assertEqual(copy.fast_bytes, 8 * 128 * 2)

  def test_each_memory_apart(self):
    fusion = self.found[1]
    self.assertEqual(fusion.source, "jit(step)/net/conv/add")
    self.assertEqual(fusion.fast_bytes, 8 * 128 * 2)
    self.assertEqual(fusion.num_bytes, 8 * 128 * (2 + 4))


if __name__ == "__main__":
  absltest.main()

// Recipes, and files of what they make.
#include "golden/bytes.hpp"

#include "cafeq/io/quantized_file.hpp"
#include "io/temporary_directory.hpp"

using namespace cafeq;
using namespace cafeq::test;

TEST_CASE("Recipes without a learned transform give the same bytes as ever") {
  if (left_out()) return;
  Set set;
  for (const int bits : {2, 3, 4, 5, 8}) {
    const std::string b = std::to_string(bits);
    add_recipe(set, "rtn " + b, recipes::rtn<>{.bits = bits});
    add_recipe(set, "rtn g64 " + b, recipes::rtn<>{.bits = bits, .group = 64});
    add_recipe(set, "mse " + b, recipes::mse<>{.bits = bits, .group = 48});
    add_recipe(set, "hadamard " + b, recipes::hadamard<>{.bits = bits, .seed = 5});
    add_recipe(set, "fast " + b, recipes::fast<>{.bits = bits});
    add_recipe(set, "fast midrise " + b,
               recipes::fast<runtime_bits, Midrise<>>{.bits = bits, .group = per_row, .seed = 3});
  }
  add_recipe(set, "fast<3>", recipes::fast<3>{});
  add_recipe(set, "mse<3> midrise", recipes::mse<3, Midrise<3>>{.group = 32});
  set.check();
}

TEST_CASE("smallest gives the same bytes as ever") {
  if (left_out()) return;
  Set set;
  add_recipe(set, "smallest 3.25", recipes::smallest{});
  add_recipe(set, "smallest 2.4 window 10",
             recipes::smallest{.bits = 2.4, .window = 10, .seed = 1});
  add_recipe(set, "smallest 1.6", recipes::smallest{.bits = 1.6});
  add_recipe(set, "smallest 4.4 window 14", recipes::smallest{.bits = 4.4, .window = 14});
  const Trellis columns{.rate = {40}, .scale_bits = 6, .window = 10, .sequence = Sequence::column};
  add_pipeline(set, "trellis columns", RandomizedHadamard{}, columns, Nearest{});
  add_pipeline(set, "trellis output side", BlockHadamard{8}, Trellis{.rate = {50}, .window = 10},
               Nearest{}, Side::output);
  add_pipeline(set, "trellis feedback", DualScaling{}, Trellis{.rate = {36}, .window = 10},
               ErrorFeedback{.sweeps = 1});
  set.check();
}

TEST_CASE("Learned transforms give the same bytes as ever") {
  if (left_out()) return;
  Set set;
  for (const int bits : {2, 3, 4}) {
    const std::string b = std::to_string(bits);
    add_recipe(set, "learned " + b, recipes::learned<>{.bits = bits, .transform_bits = 1});
    add_recipe(set, "learned affine g64 " + b,
               recipes::learned<runtime_bits, Affine<>>{
                   .bits = bits, .group = 64, .transform_bits = 2, .max_block = 16});
    add_recipe(set, "paper " + b, recipes::paper<>{.bits = bits, .transform_bits = 1, .steps = 30});
  }
  set.check();
}

TEST_CASE("Quantized files are the same bytes as ever") {
  if (left_out()) return;
  const test::TemporaryDirectory directory;
  QuantizedFileWriter writer;
  writer.add("rtn", quantize(weights(), recipes::rtn<>{.bits = 3, .group = 64}));
  writer.add("fast", quantize(weights(), recipes::fast<>{.bits = 4}));
  writer.add("midrise", quantize(weights(), recipes::fast<2, Midrise<2>>{}));
  writer.add(
      "integer zero",
      Pipeline{Identity{}, AffineIntegerZero<4>{.group = 64}, Nearest{}}.quantize(weights()));
  writer.add(
      "symmetric",
      Pipeline{BlockHadamard{16}, Symmetric<8>{}, Nearest{}, Side::output}.quantize(weights()));
  writer.add("smallest", quantize(weights(), recipes::smallest{}));
  writer.add("columns",
             Pipeline{Identity{}, Trellis{.rate = {40}, .window = 10, .sequence = Sequence::column},
                      Nearest{}}
                 .quantize(odd_weights()));
  const std::string path = directory / "golden.safetensors";
  writer.write(path);
  const auto bytes = read_file(path);
  Set set;
  set.add_bytes("file", std::as_bytes(std::span(bytes)));
  set.check();
}

// The forward pass of the example engine over all tokens of a prompt at once, in floats and on
// packed weights, on one thread. What limits it is the number of multiply-adds.
#include "support/language_model.hpp"

namespace {

using cafeq::Index;

/// Operations of the products of weights and of the attention.
double operations(const cafeq::ModelConfig& c, Index tokens) {
  const Index queries = c.heads * c.head_dim, keys = c.kv_heads * c.head_dim;
  const double weights = double(c.hidden) * double(2 * queries + 2 * keys + 3 * c.intermediate);
  const double scores = double(queries) * double(tokens + 1);  // with half of the tokens, twice
  return 2 * double(c.layers) * double(tokens) * (weights + scores);
}

}  // namespace

void register_benchmarks() {
  for (const char* quantizer : {"", "fast4", "smallest3"})
    bench::add("prompt", *quantizer == 0 ? "floats" : quantizer, [=](bench::Contest& contest) {
      const engine::Model model = bench::language_model(quantizer);
      const engine::Transformer transformer(model, {});
      const std::vector<engine::Token> tokens(bench::smoke() ? 8 : 512, 7);
      contest.ours(bench::Unit::gigaflops, operations(model.config, Index(tokens.size())), [&] {
        engine::Text text;
        bench::keep(transformer.forward(text, tokens));
      });
      contest.limit(bench::fma_limit());
      contest.run();
    });
}

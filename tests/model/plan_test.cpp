#include "cafeq/model/plan.hpp"

#include <algorithm>
#include <set>

#include "cafeq/io/gguf_recipe.hpp"
#include "cafeq/pipeline/recipes.hpp"
#include "model/plans.hpp"
#include "support/error_of.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace {

std::string why_kept(const Plan& plan, const std::string& tensor) {
  for (const KeptTensor& kept : plan.kept)
    if (kept.tensor == tensor) return kept.why;
  return {};
}
const Job& job_of(const Plan& plan, const std::string& tensor) {
  for (const Job& job : plan.jobs)
    if (std::count(job.tensors.begin(), job.tensors.end(), tensor) > 0) return job;
  FAIL("no job for " << tensor);
  return plan.jobs.front();
}
std::string error_of_plan(const Family& family, const PlanOptions& options) {
  try {
    (void)plan_of(family, options);
  } catch (const Error& error) {
    return error.message();
  }
  return "none";
}
/// What becomes of two matrices that meet in heads of so many channels.
PairForm form(const AnyRecipe& recipe, Index head_dim) {
  const std::array<PairedMatrix, 2> pair{PairedMatrix{64, 64, Side::input},
                                         PairedMatrix{64, 64, Side::output}};
  return recipe->advice(head_dim, pair).form;
}

const std::string layer0 = "model.layers.0.";
const std::string q = layer0 + "self_attn.q_proj.weight", k = layer0 + "self_attn.k_proj.weight";
const std::string v = layer0 + "self_attn.v_proj.weight", o = layer0 + "self_attn.o_proj.weight";
const std::string down = layer0 + "mlp.down_proj.weight";

}  // namespace

TEST_CASE("Every element of every family has one place in a plan") {
  for (const Family& family : {llama(), first_llama(), mistral(), qwen2(), qwen3(), gemma(),
                               gemma2(), gemma3(), phi3(), gpt2(), bert(), mixtral(), qwen2_moe()})
    for (const AnyRecipe& recipe :
         {AnyRecipe(recipes::rtn<>{.group = 64}), AnyRecipe(recipes::fast<>{.group = 64}),
          AnyRecipe(recipes::learned<>{.group = 64}), AnyRecipe(recipes::paper<>{.group = 64}),
          AnyRecipe(recipes::smallest{})})
      for (const bool all : {false, true}) {
        const PlanOptions options{.recipe = recipe, .pairs = !all, .embeddings = all};
        CHECK_FALSE(plan_of(family, options).steps.empty());
      }
}

TEST_CASE("Llama: values and outputs are a pair, the others stand alone and say why") {
  const Plan plan = plan_of(llama());
  CHECK(plan.steps.size() == 2 * 6);
  CHECK(plan.jobs.size() == 2 * 6);
  const Step& pair = step_of(plan, v);
  CHECK(tensors_of(pair, plan) == std::set{v, o});
  CHECK(plan.place(pair.matrices[0]).tensor == o);
  CHECK(pair.why == "value/output pair");
  CHECK_THAT(step_of(plan, q).why, Contains("no query/key pair: rotary"));
  CHECK_THAT(step_of(plan, down).why, Contains("no up/down pair"));
  CHECK(step_of(plan, layer0 + "mlp.gate_proj.weight").why.empty());
  CHECK_THAT(why_kept(plan, "model.embed_tokens.weight"), Contains("embeddings stay"));
  CHECK_THAT(why_kept(plan, "lm_head.weight"), Contains("embeddings stay"));
  CHECK(why_kept(plan, "model.norm.weight") == "norm");
  // In the order of the model.
  const auto first = [](const Step& step) {
    return *std::min_element(step.matrices.begin(), step.matrices.end());
  };
  CHECK(std::is_sorted(plan.steps.begin(), plan.steps.end(),
                       [&](const Step& a, const Step& b) { return first(a) < first(b); }));
}

TEST_CASE("Pairs are made only where the method has a use for them") {
  CHECK_THAT(step_of(plan_of(llama(), {.recipe = recipes::rtn<>{.group = 64}}), v).why,
             Contains("rounding to nearest"));
  PlanOptions options;
  options.pairs = false;
  const Plan plan = plan_of(llama(), options);
  CHECK(step_of(plan, v).why == "no value/output pair: not wanted");
  CHECK(std::none_of(plan.steps.begin(), plan.steps.end(),
                     [](const Step& step) { return step.pair.has_value(); }));
  // Its queries and keys are normalised, so that M would not leave the scores as they are.
  CHECK_THAT(step_of(plan_of(qwen3()), q).why, Contains("no query/key pair"));
}

TEST_CASE(
    "A pair is balanced by fast, and rounded together by learned where heads are large enough") {
  const Plan fast = plan_of(llama());
  CHECK_FALSE(fast.is_together(step_of(fast, v)));
  CHECK(fast.transform(step_of(fast, v)) == "balance; scaling, Hadamard");
  CHECK(fast.transform(step_of(fast, q)) == "scaling, Hadamard");
  CHECK(form(recipes::learned<>{}, 31) == PairForm::balanced);
  CHECK(form(recipes::learned<>{}, 32) == PairForm::together);
  CHECK(form(recipes::fast<>{}, 32) == PairForm::balanced);
  CHECK(form(GgufRecipe::make(GgufType::q4_0, recipes::fast<>{}), 31) != PairForm::balanced);
  const Family wide{
      R"({"head_dim": 32, "hidden_size": 64, "intermediate_size": 48, "model_type": "llama",
    "num_attention_heads": 2, "num_hidden_layers": 2})",
      llama_tensors({.hidden = 64, .heads = 2, .kv_heads = 2, .head_dim = 32}).list()};
  const Plan together = plan_of(wide, {.recipe = recipes::learned<>{}});
  CHECK(together.is_together(step_of(together, v)));
  CHECK(together.transform(step_of(together, v)) == "M between the two");
  const Plan trellis = plan_of(wide, {.recipe = recipes::smallest{}});
  CHECK(trellis.is_together(step_of(trellis, v)));
  // The output projection comes first, whose heads are its columns.
  CHECK(trellis.grid(step_of(trellis, v), 0) == "trellis3.125 column6");
  CHECK(trellis.grid(step_of(trellis, v), 1) == "trellis3.125 row6");
  CHECK(trellis.grid(step_of(trellis, q), 0) == "trellis3.125 row6");
}

TEST_CASE(
    "Packed attention with biases is one job, and the biases that its pairs move are not kept") {
  const Plan plan = plan_of(gpt2());
  const Job& job = job_of(plan, "h.0.attn.c_attn.weight");
  CHECK(std::set<std::string>(job.tensors.begin(), job.tensors.end()) ==
        std::set<std::string>{"h.0.attn.c_attn.weight", "h.0.attn.c_attn.bias",
                              "h.0.attn.c_proj.weight", "h.0.attn.c_proj.bias"});
  CHECK(job.steps.size() == 2);  // query/key and value/output
  for (const std::size_t s : job.steps) CHECK(plan.steps[s].pair);
  CHECK(why_kept(plan, "h.0.attn.c_attn.bias").empty());
  CHECK(why_kept(plan, "h.0.mlp.c_fc.bias") == "bias");
  CHECK(job_of(plan, "h.0.mlp.c_fc.weight").tensors.size() == 1);

  const Plan plain = plan_of(gpt2(), {.recipe = recipes::rtn<>{.group = 64}});
  CHECK(job_of(plain, "h.0.attn.c_attn.weight").steps.size() == 3);
  CHECK(job_of(plain, "h.0.attn.c_attn.weight").tensors.size() == 1);
  CHECK(why_kept(plain, "h.0.attn.c_attn.bias") == "bias");

  const Plan separate = plan_of(bert());
  CHECK(job_of(separate, "bert.encoder.layer.0.attention.self.query.weight").steps.size() == 1);
  CHECK(job_of(separate, "bert.encoder.layer.0.attention.self.query.weight").tensors.size() == 4);
}

TEST_CASE("Experts of one tensor are one job") {
  auto tensors = in_file(gguf_tensors(3).list());
  const Plan plan = make_plan(tensors, {}, {.recipe = recipes::fast<>{.bits = 2}});
  check_cover(tensors, plan);
  CHECK(job_of(plan, "blk.0.ffn_up_exps.weight").steps.size() == 3);
}

TEST_CASE("Embeddings, routers and whatever is named are quantized when asked for") {
  PlanOptions options;
  options.embeddings = true;
  const Plan all = plan_of(gpt2(), options);
  CHECK(why_kept(all, "wte.weight").empty());
  CHECK(why_kept(all, "wpe.weight").empty());
  CHECK_THAT(step_of(all, "wte.weight").why, Contains("tied: also the unembedding"));

  const std::string gate = layer0 + "block_sparse_moe.gate.weight";
  CHECK_THAT(why_kept(plan_of(mixtral()), gate), Contains("routers stay"));
  options = {};
  options.include = {"*.layers.0.*", "lm_head.*"};
  options.exclude = {"*.q_proj.*"};
  const Plan some = plan_of(mixtral(), options);
  CHECK(why_kept(some, gate).empty());
  CHECK(why_kept(some, "lm_head.weight").empty());
  CHECK(why_kept(some, q) == "excluded");
  CHECK(why_kept(some, "model.layers.1.self_attn.k_proj.weight") == "not included");
  CHECK(step_of(some, k).why == "no query/key pair: the other one is kept");
}

TEST_CASE("Patterns, bits and groups that mean nothing are refused") {
  PlanOptions options;
  options.exclude = {"*.q_prj.*"};
  CHECK_THAT(error_of_plan(llama(), options), Contains("no tensor is named like *.q_prj.*"));
  options = {};
  options.include = {"model.embed_tokens"};
  CHECK_THAT(error_of_plan(llama(), options),
             Contains("no tensor is named like model.embed_tokens"));
  const Error missing = error_of([] { (void)make_plan({}, {}, {}); });
  CHECK(missing.code() == ErrorCode::invalid_argument);
  CHECK_THAT(missing.message(), Contains("recipe: none is given"));
  CHECK_THAT(error_of_plan(llama(), {.recipe = recipes::fast<>{.bits = 9}}), Contains("bits"));
  CHECK_THAT(error_of_plan(llama(), {.recipe = recipes::fast<>{.group = -2}}),
             Contains("group is -2"));
  // A type says its bits itself.
  CHECK(error_of_plan(llama(), {.recipe = GgufRecipe::make(GgufType::q4_0,
                                                           recipes::fast<>{.bits = 9})}) == "none");
}

TEST_CASE("What would not become smaller is kept") {
  auto tensors = in_file(gguf_tensors().list());  // Q8_0: 8.5 bits a weight
  const Plan plan = make_plan(tensors, {}, {.recipe = recipes::rtn<>{.bits = 8, .group = 32}});
  check_cover(tensors, plan);
  CHECK(plan.steps.empty());
  CHECK_THAT(why_kept(plan, "blk.0.attn_q.weight"), Contains("would not be smaller"));
  // Where bits are yet to be chosen, fewer would do.
  for (const AnyRecipe& recipe :
       {AnyRecipe(recipes::rtn<>{.bits = 8, .group = 32}), AnyRecipe(recipes::smallest{.bits = 9})})
    CHECK_FALSE(make_plan(tensors, {}, {.recipe = recipe, .any_bits = true}).steps.empty());
  const Plan types =
      make_plan(tensors, {},
                {.recipe = GgufRecipe::make(GgufType::q8_0, recipes::fast<>{}), .any_bits = true});
  CHECK_FALSE(types.steps.empty());
  CHECK_FALSE(
      make_plan(tensors, {}, {.recipe = recipes::rtn<>{.bits = 7, .group = 32}}).steps.empty());
}

TEST_CASE("The storage of a plan is that of its steps") {
  const Plan plan = plan_of(llama());
  const Step& pair = step_of(plan, v);
  CHECK(plan.weights(pair) == 16 * 32 + 32 * 32);
  const AnyRecipe fast = recipes::fast<>{}, learned = recipes::learned<>{.bits = 3};
  CHECK(plan.storage_bits(pair) == fast->storage_bits(16, 32) + fast->storage_bits(32, 32));
  // fast: 4 bits, a scale and an offset for each row of 32, 16 bits a column, the exponent and the
  // seed
  CHECK(fast->storage_bits(16, 32) == 16 * (32 * 4 + 32) + 32 * 16 + 16 + 64);
  const std::array<PairedMatrix, 2> together{PairedMatrix{64, 32, Side::output},
                                             PairedMatrix{64, 32, Side::output}};
  CHECK(learned->storage_bits(together)[0] == 64 * (8 * 12 + 16) + 16);
  CHECK(GgufRecipe::make(GgufType::q4_0, fast)->storage_bits(16, 64) == 16 * 2 * 18 * 8);
  CHECK(learned->grid(64, 64) == "midrise3 row");
  CHECK(fast->grid(64, 64) == "affine4 g64");

  std::int64_t sum = 0;
  for (const Step& step : plan.steps) {
    const auto each = plan.storage_bits_each(step, step.recipe);
    CHECK(plan.storage_bits(step) == each[0] + each[1]);
    sum += plan.storage_bits(step);
  }
  CHECK(plan.storage_bits() == sum);
}

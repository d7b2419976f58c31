#include "cafeq/model/plan.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "cafeq/io/json_config.hpp"
#include "model/families.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace {

/// With the bytes that the tensors take in a file.
std::vector<TensorInfo> in_file(std::vector<TensorInfo> tensors) {
  for (TensorInfo& tensor : tensors) {
    const auto scalar = scalar_type_named(tensor.type);
    const auto blocks = gguf_type_named(tensor.type);
    const Index count = *element_count(tensor.shape);
    tensor.bytes = scalar ? count * bytes_of(*scalar)
                          : Index(double(count) * gguf_type_info(*blocks).bits_per_weight() / 8);
  }
  return tensors;
}

/// Each matrix is in one step or its tensor is kept, each tensor is in one job or kept, and jobs
/// have whole steps.
void check_cover(std::span<const TensorInfo> tensors, const Plan& plan) {
  std::map<std::size_t, int> steps_of;
  for (const Step& step : plan.steps) {
    CHECK(step.matrices.size() == (step.pair ? 2 : 1));
    for (const std::size_t m : step.matrices) ++steps_of[m];
  }
  std::map<std::string, int> owners;
  std::vector<int> jobs_of(plan.steps.size());
  for (const Job& job : plan.jobs) {
    for (const std::string& tensor : job.tensors) ++owners[tensor];
    for (const std::size_t s : job.steps) {
      ++jobs_of[s];
      for (const std::size_t m : plan.steps[s].matrices)
        CHECK(std::count(job.tensors.begin(), job.tensors.end(), plan.place(m).tensor) == 1);
    }
  }
  CHECK(std::all_of(jobs_of.begin(), jobs_of.end(), [](int count) { return count == 1; }));
  std::map<std::string, int> kept;
  for (const KeptTensor& tensor : plan.kept) {
    ++kept[tensor.tensor];
    CHECK_FALSE(tensor.why.empty());
  }
  for (const TensorInfo& tensor : tensors) {
    INFO(tensor.name);
    CHECK(owners[tensor.name] + kept[tensor.name] == 1);
  }
  CHECK(owners.size() == tensors.size());
  for (std::size_t m = 0; m < plan.roles.matrices.size(); ++m) {
    INFO(plan.place(m).tensor);
    CHECK(steps_of[m] == 1 - kept[plan.place(m).tensor]);
  }
}

Plan plan_of(const Family& family, const PlanOptions& options = {}) {
  const auto tensors = in_file(family.tensors);
  Plan plan = make_plan(tensors, config_from_json(family.config), options);
  check_cover(tensors, plan);
  return plan;
}

/// The step that has a tensor's only matrix, or the one with that role.
const Step& step_of(const Plan& plan, const std::string& tensor, std::optional<Role> role = {}) {
  for (const Step& step : plan.steps)
    for (const std::size_t m : step.matrices)
      if (plan.place(m).tensor == tensor && (!role || plan.roles.matrices[m].role == *role))
        return step;
  FAIL("no step for " << tensor);
  return plan.steps.front();
}
std::string why_kept(const Plan& plan, const std::string& tensor) {
  for (const KeptTensor& kept : plan.kept)
    if (kept.tensor == tensor) return kept.why;
  return {};
}
std::set<std::string> tensors_of(const Step& step, const Plan& plan) {
  std::set<std::string> names;
  for (const std::size_t m : step.matrices) names.insert(plan.place(m).tensor);
  return names;
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
PlanOptions method(Method method, Index group = 64) {
  return {.choice = {.method = method, .group = group}};
}

const std::string layer0 = "model.layers.0.";
const std::string q = layer0 + "self_attn.q_proj.weight", k = layer0 + "self_attn.k_proj.weight";
const std::string v = layer0 + "self_attn.v_proj.weight", o = layer0 + "self_attn.o_proj.weight";
const std::string down = layer0 + "mlp.down_proj.weight";

}  // namespace

TEST_CASE("Every element of every family has one place in a plan") {
  for (const Family& family : {llama(), first_llama(), mistral(), qwen2(), qwen3(), gemma(),
                               gemma2(), gemma3(), phi3(), gpt2(), bert(), mixtral(), qwen2_moe()})
    for (const Method m :
         {Method::rtn, Method::fast, Method::learned, Method::paper, Method::smallest})
      for (const bool all : {false, true}) {
        PlanOptions options = method(m);
        options.embeddings = all;
        options.pairs = !all;
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
  CHECK_THAT(step_of(plan_of(llama(), method(Method::rtn)), v).why,
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
  const PairRole small{.layout = {.head_dim = 31}}, large{.layout = {.head_dim = 32}};
  const Choice learned{.method = Method::learned},
      q4{.method = Method::fast, .type = GgufType::q4_0};
  CHECK(is_balanced(learned, small));
  CHECK_FALSE(is_balanced(learned, large));
  CHECK(is_balanced(Choice{}, large));
  CHECK_FALSE(is_balanced(q4, small));
  const Family wide{
      R"({"head_dim": 32, "hidden_size": 64, "intermediate_size": 48, "model_type": "llama",
    "num_attention_heads": 2, "num_hidden_layers": 2})",
      llama_tensors({.hidden = 64, .heads = 2, .kv_heads = 2, .head_dim = 32}).list()};
  const Plan together = plan_of(wide, method(Method::learned, per_row));
  CHECK(together.is_together(step_of(together, v)));
  CHECK(together.transform(step_of(together, v)) == "M between the two");
  const Plan trellis = plan_of(wide, method(Method::smallest));
  CHECK(trellis.is_together(step_of(trellis, v)));
  CHECK(trellis.grid(step_of(trellis, v), 0) == "trellis3.125 row6");
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

  const Plan plain = plan_of(gpt2(), method(Method::rtn));
  CHECK(job_of(plain, "h.0.attn.c_attn.weight").steps.size() == 3);
  CHECK(job_of(plain, "h.0.attn.c_attn.weight").tensors.size() == 1);
  CHECK(why_kept(plain, "h.0.attn.c_attn.bias") == "bias");

  const Plan separate = plan_of(bert());
  CHECK(job_of(separate, "bert.encoder.layer.0.attention.self.query.weight").steps.size() == 1);
  CHECK(job_of(separate, "bert.encoder.layer.0.attention.self.query.weight").tensors.size() == 4);
}

TEST_CASE("Experts of one tensor are one job") {
  auto tensors = in_file(gguf_tensors(3).list());
  const Plan plan = make_plan(tensors, {}, {.choice = {.bits = 2}});
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
  CHECK_THAT(error_of_plan(llama(), {.choice = {.bits = 9}}), Contains("bits"));
  CHECK_THAT(error_of_plan(llama(), {.choice = {.group = -2}}), Contains("group is -2"));
  // A type says its bits itself.
  CHECK(error_of_plan(llama(), {.choice = {.bits = 9, .type = GgufType::q4_0}}) == "none");
}

TEST_CASE("What would not become smaller is kept") {
  auto tensors = in_file(gguf_tensors().list());  // Q8_0: 8.5 bits a weight
  const Plan plan =
      make_plan(tensors, {}, {.choice = {.method = Method::rtn, .bits = 8, .group = 32}});
  check_cover(tensors, plan);
  CHECK(plan.steps.empty());
  CHECK_THAT(why_kept(plan, "blk.0.attn_q.weight"), Contains("would not be smaller"));
  CHECK_FALSE(make_plan(tensors, {}, {.choice = {.method = Method::rtn, .bits = 7, .group = 32}})
                  .steps.empty());
}

TEST_CASE("A type of GGUF that rows do not fit gives way to a finer one") {
  CHECK(legal_type(GgufType::q4_k, 512) == GgufType::q4_k);
  CHECK(legal_type(GgufType::q4_k, 96) == GgufType::iq4_nl);
  CHECK(legal_type(GgufType::q2_k, 96) == GgufType::iq4_nl);
  CHECK(legal_type(GgufType::q6_k, 96) == GgufType::q8_0);
  CHECK(legal_type(GgufType::q4_0, 48) == GgufType::f16);
  CHECK(legal_type(GgufType::f32, 48) == GgufType::f32);

  auto t = llama_tensors({.hidden = 32, .intermediate = 64});
  const Family family{llama().config, t.list()};
  const Plan plan = plan_of(family, {.choice = {.type = GgufType::q5_k}});
  CHECK(step_of(plan, q).choice.type == GgufType::q5_0);
  CHECK_THAT(step_of(plan, q).why, Contains("rows of 32 are no multiple of Q5_K's 256"));
  CHECK_THAT(step_of(plan, v).why,
             Contains("no value/output pair: heads of 8 channels gain nothing by it"));
  const Plan learned =
      plan_of(family, {.choice = {.method = Method::learned, .type = GgufType::q5_k}});
  CHECK(tensors_of(step_of(learned, v), learned) == std::set{v, o});

  // Values of 32 columns and outputs of 48 would not have one type.
  const Family uneven{
      mistral().config,
      llama_tensors({.hidden = 64, .heads = 3, .kv_heads = 1, .head_dim = 16}).list()};
  const std::string config =
      R"({"head_dim": 16, "hidden_size": 64, "intermediate_size": 48, "model_type": "mistral",
    "num_attention_heads": 3,
    "num_hidden_layers": 2, "num_key_value_heads": 1})";
  const Plan apart = plan_of({config, uneven.tensors}, {.choice = {.type = GgufType::q4_0}});
  CHECK_THAT(
      step_of(apart, v).why,
      Contains("no value/output pair: the other one is kept"));  // fp16 is no smaller than bf16
}

TEST_CASE("The storage of a plan is that of its steps") {
  const Plan plan = plan_of(llama());
  const Step& pair = step_of(plan, v);
  CHECK(plan.weights(pair) == 16 * 32 + 32 * 32);
  CHECK(plan.storage(pair) ==
        planned_storage({}, 16, 32, false) + planned_storage({}, 32, 32, false));
  // fast: 4 bits, a scale and an offset for each row of 32, 16 bits a column, the exponent and the
  // seed
  CHECK(planned_storage({}, 16, 32, false) == 16 * (32 * 4 + 32) + 32 * 16 + 16 + 64);
  CHECK(planned_storage({.method = Method::learned, .bits = 3, .group = per_row}, 64, 32, true) ==
        64 * (8 * 12 + 16) + 16);
  CHECK(planned_storage({.type = GgufType::q4_0}, 16, 64, false) == 16 * 2 * 18 * 8);
  CHECK(grid_name({.method = Method::learned, .bits = 3, .group = per_row}, 64, 64) ==
        "midrise3 row");
  CHECK(grid_name({}, 64, 64) == "affine4 g64");
}

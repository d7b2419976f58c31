#include "cafeq/model/find_roles.hpp"

#include <algorithm>
#include <map>

#include "cafeq/io/gguf_config.hpp"
#include "cafeq/io/json_config.hpp"
#include "cafeq/io/llama2c_config.hpp"
#include "model/families.hpp"
#include "support/catch.hpp"

using namespace cafeq;
using namespace cafeq::test;

namespace {

/// Each tensor is one of the others, or matrices fill it: no row is lost or taken twice.
void check_cover(std::span<const TensorInfo> tensors, const ModelRoles& roles) {
  std::map<std::string, std::vector<MatrixPlace>> places;
  for (const MatrixRole& matrix : roles.matrices)
    places[matrix.place.tensor].push_back(matrix.place);
  std::map<std::string, int> others;
  for (const KeptTensor& other : roles.others) {
    ++others[other.tensor];
    CHECK_FALSE(other.why.empty());
  }
  for (const TensorInfo& tensor : tensors) {
    INFO(tensor.name);
    auto& parts = places[tensor.name];
    REQUIRE(others[tensor.name] == (parts.empty() ? 1 : 0));
    if (parts.empty()) continue;
    std::sort(parts.begin(), parts.end(), [](const auto& a, const auto& b) {
      return std::pair(a.slice, a.begin) < std::pair(b.slice, b.begin);
    });
    const bool stacked = tensor.shape.size() == 3;
    Index slice = stacked ? 0 : -1;
    Index row = 0;
    for (const MatrixPlace& part : parts) {
      const Index out = tensor.shape[tensor.shape.size() - (part.transposed ? 1 : 2)];
      if (row == out) {
        row = 0;
        ++slice;
      }
      CHECK(part.slice == slice);
      CHECK(part.begin == row);
      CHECK(part.in == tensor.shape[tensor.shape.size() - (part.transposed ? 2 : 1)]);
      REQUIRE(part.out > 0);
      row += part.out;
      if (&part == &parts.back()) {
        CHECK(row == out);
        CHECK(slice == (stacked ? tensor.shape[0] - 1 : -1));
      }
    }
  }
  CHECK(others.size() + places.size() >= tensors.size());
}

ModelRoles roles_of(std::span<const TensorInfo> tensors, const ModelConfig& config) {
  const auto roles = find_roles(tensors, config);
  check_cover(tensors, roles);
  return roles;
}
ModelRoles roles_of(const Family& family) {
  return roles_of(family.tensors, config_from_json(family.config));
}

/// The matrix at a row of a tensor, and of a slice.
const MatrixRole& matrix_at(const ModelRoles& roles, const std::string& tensor, Index begin = 0,
                            Index slice = -1) {
  for (const MatrixRole& matrix : roles.matrices)
    if (matrix.place.tensor == tensor && matrix.place.begin == begin && matrix.place.slice == slice)
      return matrix;
  FAIL("no matrix at row " << begin << " of " << tensor);
  return roles.matrices.front();
}

Role kept_role(const ModelRoles& roles, const std::string& tensor) {
  for (const KeptTensor& other : roles.others)
    if (other.tensor == tensor) return other.role;
  FAIL(tensor << " is not among the others");
  return Role::other;
}
std::string why_kept(const ModelRoles& roles, const std::string& tensor) {
  for (const KeptTensor& other : roles.others)
    if (other.tensor == tensor) return other.why;
  return "";
}

/// The pairs of a kind, in order.
std::vector<PairRole> pairs_of(const ModelRoles& roles, PairKind kind) {
  std::vector<PairRole> found;
  for (const PairRole& pair : roles.pairs)
    if (pair.kind == kind) found.push_back(pair);
  return found;
}

void check_all_exact(const ModelRoles& roles, PairKind kind, std::size_t count) {
  const auto pairs = pairs_of(roles, kind);
  CHECK(pairs.size() == count);
  for (const PairRole& pair : pairs) {
    INFO(name_of(kind) << " of " << roles.matrices[pair.second].module);
    CHECK(pair.refusal == "");
  }
}
void check_all_refused(const ModelRoles& roles, PairKind kind, std::size_t count,
                       const std::string& reason) {
  const auto pairs = pairs_of(roles, kind);
  CHECK(pairs.size() == count);
  for (const PairRole& pair : pairs) {
    INFO(name_of(kind) << " of " << roles.matrices[pair.second].module);
    CHECK_THAT(pair.refusal, Contains(reason));
  }
}

bool same_layout(const HeadLayout& a, const HeadLayout& b) {
  return a.head_dim == b.head_dim && a.heads == b.heads && a.kv_heads == b.kv_heads;
}

void check_rotary(const ModelRoles& roles, Index dims, Rotary::Pairing pairing) {
  for (const PairRole& pair : pairs_of(roles, PairKind::query_key)) {
    REQUIRE(pair.attention.rotary);
    CHECK(pair.attention.rotary->dims == dims);
    CHECK(pair.attention.rotary->pairing == pairing);
  }
}

}  // namespace

TEST_CASE("Llama: every projection has its role, every layer its three pairs") {
  const auto roles = roles_of(llama());
  CHECK(roles.matrices.size() == 2 + 2 * 7);
  for (const auto& [name, role, out, in] : std::vector<std::tuple<std::string, Role, Index, Index>>{
           {"self_attn.q_proj", Role::query, 32, 32},
           {"self_attn.k_proj", Role::key, 16, 32},
           {"self_attn.v_proj", Role::value, 16, 32},
           {"self_attn.o_proj", Role::output, 32, 32},
           {"mlp.gate_proj", Role::gate, 48, 32},
           {"mlp.up_proj", Role::up, 48, 32},
           {"mlp.down_proj", Role::down, 32, 48}}) {
    const MatrixRole& matrix = matrix_at(roles, "model.layers.1." + name + ".weight");
    CHECK(matrix.role == role);
    CHECK(matrix.layer == 1);
    CHECK(matrix.expert == -1);
    CHECK(matrix.module == "model.layers.1." + name.substr(0, name.find('.')));
    CHECK(matrix.place.out == out);
    CHECK(matrix.place.in == in);
    CHECK_FALSE(matrix.place.transposed);
    CHECK_FALSE(matrix.bias);
    CHECK(matrix.note == "");
  }
  CHECK(matrix_at(roles, "model.embed_tokens.weight").role == Role::embedding);
  CHECK(matrix_at(roles, "model.embed_tokens.weight").note == "");
  CHECK(matrix_at(roles, "lm_head.weight").role == Role::unembedding);
  CHECK(matrix_at(roles, "lm_head.weight").layer == -1);
  CHECK(kept_role(roles, "model.layers.0.input_layernorm.weight") == Role::norm);
  CHECK(why_kept(roles, "model.layers.0.input_layernorm.weight") == "norm");

  for (const PairKind kind : {PairKind::value_output, PairKind::query_key, PairKind::up_down})
    check_all_exact(roles, kind, 2);
  CHECK(roles.pairs.size() == 6);
  const PairRole pair = pairs_of(roles, PairKind::value_output)[1];
  CHECK(roles.matrices[pair.first].place.tensor == "model.layers.1.self_attn.o_proj.weight");
  CHECK(roles.matrices[pair.second].place.tensor == "model.layers.1.self_attn.v_proj.weight");
  CHECK(same_layout(pair.layout, {.head_dim = 8, .heads = 4, .kv_heads = 2}));
  const PairRole scores = pairs_of(roles, PairKind::query_key)[0];
  CHECK(roles.matrices[scores.first].role == Role::query);
  CHECK(roles.matrices[scores.second].role == Role::key);
  const PairRole mlp = pairs_of(roles, PairKind::up_down)[0];
  CHECK(roles.matrices[mlp.first].role == Role::down);
  CHECK(roles.matrices[mlp.second].role == Role::up);
  CHECK(same_layout(mlp.layout, channel_layout(48)));
  CHECK(mlp.mlp.gated);
  check_rotary(roles, 8, Rotary::Pairing::half_split);
}

TEST_CASE("Llama as first converted: heads without groups, rotary tables kept") {
  const auto roles = roles_of(first_llama());
  CHECK(why_kept(roles, "model.layers.0.self_attn.rotary_emb.inv_freq") ==
        "table of rotary positions");
  check_all_exact(roles, PairKind::query_key, 2);
  CHECK(same_layout(pairs_of(roles, PairKind::query_key)[0].layout,
                    {.head_dim = 8, .heads = 4, .kv_heads = 4}));
}

TEST_CASE("Mistral: a head size of its own, one key/value head") {
  const auto roles = roles_of(mistral());
  check_all_exact(roles, PairKind::value_output, 2);
  check_all_exact(roles, PairKind::query_key, 2);
  CHECK(same_layout(pairs_of(roles, PairKind::value_output)[0].layout,
                    {.head_dim = 16, .heads = 2, .kv_heads = 1}));
  check_rotary(roles, 16, Rotary::Pairing::half_split);
}

TEST_CASE("Qwen2: biases on queries, keys and values, none on the output") {
  const auto roles = roles_of(qwen2());
  for (const std::string name : {"q_proj", "k_proj", "v_proj"}) {
    const MatrixRole& matrix = matrix_at(roles, "model.layers.0.self_attn." + name + ".weight");
    REQUIRE(matrix.bias);
    CHECK(matrix.bias->tensor == "model.layers.0.self_attn." + name + ".bias");
    CHECK(matrix.bias->begin == 0);
    CHECK(kept_role(roles, matrix.bias->tensor) == Role::bias);
  }
  CHECK_FALSE(matrix_at(roles, "model.layers.0.self_attn.o_proj.weight").bias);
  for (const PairKind kind : {PairKind::value_output, PairKind::query_key, PairKind::up_down})
    check_all_exact(roles, kind, 2);
  CHECK_THAT(matrix_at(roles, "model.embed_tokens.weight").note, Contains("tied"));
}

TEST_CASE("Qwen3: queries and keys are normalised, values are not") {
  const auto roles = roles_of(qwen3());
  check_all_refused(roles, PairKind::query_key, 2, "normalised after their projection");
  check_all_exact(roles, PairKind::value_output, 2);
  check_all_exact(roles, PairKind::up_down, 2);
  CHECK(kept_role(roles, "model.layers.0.self_attn.q_norm.weight") == Role::norm);
}

TEST_CASE("Gemma: gated GELU, multi-query, a tied embedding") {
  const auto roles = roles_of(gemma());
  for (const PairKind kind : {PairKind::value_output, PairKind::query_key, PairKind::up_down})
    check_all_exact(roles, kind, 2);
  CHECK(same_layout(pairs_of(roles, PairKind::value_output)[0].layout,
                    {.head_dim = 16, .heads = 4, .kv_heads = 1}));
  CHECK(pairs_of(roles, PairKind::up_down)[0].mlp.activation == Activation::gelu);
  CHECK(matrix_at(roles, "model.embed_tokens.weight").note == "tied: also the unembedding");
}

TEST_CASE(
    "Gemma 2: a soft cap acts on scores, norms behind a block on the residual, so all pairs are "
    "exact") {
  const auto roles = roles_of(gemma2());
  for (const PairKind kind : {PairKind::value_output, PairKind::query_key, PairKind::up_down})
    check_all_exact(roles, kind, 2);
  CHECK(kept_role(roles, "model.layers.0.post_feedforward_layernorm.weight") == Role::norm);
}

TEST_CASE(
    "Gemma 3: heads that the configuration leaves out follow from the norm of a head; the vision "
    "tower is no part of it") {
  const Family family = gemma3();
  ModelConfig config = config_from_json(family.config);
  config.heads = config.kv_heads = config.head_dim = 0;
  const auto roles = roles_of(family.tensors, config);
  check_all_exact(roles, PairKind::value_output, 2);
  check_all_exact(roles, PairKind::up_down, 2);
  check_all_refused(roles, PairKind::query_key, 2, "normalised");
  CHECK(same_layout(pairs_of(roles, PairKind::value_output)[0].layout,
                    {.head_dim = 16, .heads = 4, .kv_heads = 2}));
  const MatrixRole& seen =
      matrix_at(roles, "vision_tower.vision_model.encoder.layers.0.self_attn.v_proj.weight");
  CHECK(seen.role == Role::other);
  CHECK(seen.note == "its name is not known");
  REQUIRE(seen.bias);
  CHECK(why_kept(roles, "vision_tower.vision_model.embeddings.patch_embedding.weight") ==
        "has 4 dimensions");
}

TEST_CASE("Phi-3: queries, keys and values lie in one tensor, gate and up in another") {
  const auto roles = roles_of(phi3());
  const std::string qkv = "model.layers.1.self_attn.qkv_proj.weight";
  for (const auto& [begin, role, out] : std::vector<std::tuple<Index, Role, Index>>{
           {0, Role::query, 32}, {32, Role::key, 16}, {48, Role::value, 16}}) {
    CHECK(matrix_at(roles, qkv, begin).role == role);
    CHECK(matrix_at(roles, qkv, begin).place.out == out);
  }
  CHECK(matrix_at(roles, "model.layers.1.mlp.gate_up_proj.weight", 0).role == Role::gate);
  CHECK(matrix_at(roles, "model.layers.1.mlp.gate_up_proj.weight", 48).role == Role::up);
  for (const PairKind kind : {PairKind::value_output, PairKind::query_key, PairKind::up_down})
    check_all_exact(roles, kind, 2);
  check_rotary(roles, 8, Rotary::Pairing::half_split);
  check_rotary(roles_of(phi3("0.75")), 6, Rotary::Pairing::half_split);  // Phi-4-mini
}

TEST_CASE("packed tensors that do not part as the configuration says stay whole") {
  Family family = phi3();
  for (TensorInfo& tensor : family.tensors)
    if (tensor.name.find("qkv_proj") != std::string::npos) tensor.shape[0] = 72;
  const auto roles = roles_of(family);
  const MatrixRole& packed = matrix_at(roles, "model.layers.0.self_attn.qkv_proj.weight");
  CHECK(packed.role == Role::other);
  CHECK_THAT(packed.note, Contains("packed"));
  CHECK(pairs_of(roles, PairKind::value_output).empty());
}

TEST_CASE(
    "GPT-2: stored [in, out], queries, keys and values side by side, no rotary positions, GELU "
    "without a gate") {
  const auto roles = roles_of(gpt2());
  const std::string qkv = "h.0.attn.c_attn.weight";
  for (const auto& [begin, role] :
       std::vector<std::pair<Index, Role>>{{0, Role::query}, {32, Role::key}, {64, Role::value}}) {
    const MatrixRole& matrix = matrix_at(roles, qkv, begin);
    CHECK(matrix.role == role);
    CHECK(matrix.place.transposed);
    CHECK(matrix.place.out == 32);
    CHECK(matrix.place.in == 32);
    REQUIRE(matrix.bias);
    CHECK(matrix.bias->tensor == "h.0.attn.c_attn.bias");
    CHECK(matrix.bias->begin == begin);
  }
  CHECK(matrix_at(roles, "h.0.attn.c_proj.weight").place.transposed);
  const MatrixRole& up = matrix_at(roles, "h.0.mlp.c_fc.weight");
  CHECK(up.role == Role::up);
  CHECK(up.place.out == 128);
  CHECK(up.place.in == 32);
  CHECK(matrix_at(roles, "wpe.weight").role == Role::position);
  CHECK_FALSE(matrix_at(roles, "wte.weight").place.transposed);
  CHECK(why_kept(roles, "h.0.attn.bias") == "attention mask");
  CHECK(kept_role(roles, "h.0.attn.c_attn.bias") == Role::bias);
  CHECK(kept_role(roles, "h.0.ln_1.weight") == Role::norm);

  check_all_exact(roles, PairKind::value_output, 2);
  check_all_exact(roles, PairKind::query_key, 2);
  CHECK_FALSE(pairs_of(roles, PairKind::query_key)[0].attention.rotary);
  check_all_refused(roles, PairKind::up_down, 2, "permutations stay possible");
}

TEST_CASE("StarCoder 2 and GPT-BigCode use GPT-2's names for tensors stored [out, in]") {
  Tensors t;
  t.linear("transformer.h.0.attn.c_attn", 48, 32).linear("transformer.h.0.attn.c_proj", 32, 32);
  t.linear("transformer.h.0.mlp.c_fc", 128, 32).linear("transformer.h.0.mlp.c_proj", 32, 128);
  const auto config = config_from_json(
      R"({"activation_function": "gelu_pytorch_tanh", "model_type": "gpt_bigcode",
    "multi_query": true, "n_embd": 32, "n_head": 4, "n_layer": 1})");
  const auto roles = roles_of(t.list(), config);
  CHECK_FALSE(matrix_at(roles, "transformer.h.0.attn.c_proj.weight").place.transposed);
  CHECK(matrix_at(roles, "transformer.h.0.attn.c_attn.weight", 40).role == Role::value);
  CHECK(matrix_at(roles, "transformer.h.0.attn.c_attn.weight", 40).place.out == 8);
  check_all_exact(roles, PairKind::value_output, 1);
  check_all_exact(roles, PairKind::query_key, 1);
  CHECK(pairs_of(roles, PairKind::query_key)[0].layout.kv_heads == 1);

  Tensors s;
  s.linear("model.layers.0.mlp.c_fc", 128, 32).linear("model.layers.0.mlp.c_proj", 32, 128);
  CHECK(matrix_at(roles_of(s.list(), config_from_json(R"({"model_type": "starcoder2"})")),
                  "model.layers.0.mlp.c_fc.weight")
            .place.out == 128);
}

TEST_CASE("BERT: biases everywhere, learned positions, the old names of its norms") {
  const auto roles = roles_of(bert());
  const std::string layer = "bert.encoder.layer.1.";
  CHECK(matrix_at(roles, layer + "attention.self.key.weight").role == Role::key);
  CHECK(matrix_at(roles, layer + "attention.output.dense.weight").role == Role::output);
  CHECK(matrix_at(roles, layer + "attention.output.dense.weight").module ==
        "bert.encoder.layer.1.attention");
  CHECK(matrix_at(roles, layer + "intermediate.dense.weight").role == Role::up);
  CHECK(matrix_at(roles, layer + "output.dense.weight").role == Role::down);
  REQUIRE(matrix_at(roles, layer + "output.dense.weight").bias);
  CHECK(matrix_at(roles, "bert.embeddings.word_embeddings.weight").role == Role::embedding);
  CHECK(matrix_at(roles, "bert.embeddings.token_type_embeddings.weight").role == Role::position);
  CHECK(matrix_at(roles, "bert.embeddings.token_type_embeddings.weight").note == "");
  CHECK(matrix_at(roles, "bert.pooler.dense.weight").role == Role::other);
  CHECK(kept_role(roles, layer + "output.LayerNorm.gamma") == Role::norm);
  CHECK(kept_role(roles, layer + "output.LayerNorm.beta") == Role::bias);
  CHECK(why_kept(roles, "bert.embeddings.position_ids") == "its elements are I64");
  check_all_exact(roles, PairKind::value_output, 2);
  check_all_exact(roles, PairKind::query_key, 2);
  check_all_refused(roles, PairKind::up_down, 2, "without a gate");
}

TEST_CASE(
    "BERT with relative positions: their tensor and their configuration each refuse the "
    "attention") {
  Family family = bert();
  family.tensors.push_back(
      {"bert.encoder.layer.0.attention.self.distance_embedding.weight", "F32", {31, 8}});
  const auto roles = roles_of(family);
  CHECK_THAT(pairs_of(roles, PairKind::query_key)[0].refusal,
             Contains("what bert.encoder.layer.0.attention.self.distance_embedding.weight does"));
  CHECK(pairs_of(roles, PairKind::query_key)[1].refusal == "");

  std::string config = bert().config;
  config.replace(config.find("absolute"), 8, "relative_key");
  check_all_refused(roles_of(bert().tensors, config_from_json(config)), PairKind::query_key, 2,
                    "relative_key");
}

TEST_CASE("DistilBERT, OPT and ModernBERT by their names") {
  Tensors d;
  for (const std::string name : {"q_lin", "k_lin", "v_lin", "out_lin"})
    d.linear("distilbert.transformer.layer.0.attention." + name, 32, 32);
  d.linear("distilbert.transformer.layer.0.ffn.lin1", 64, 32)
      .linear("distilbert.transformer.layer.0.ffn.lin2", 32, 64);
  const auto distilled = roles_of(
      d.list(),
      config_from_json(
          R"({"activation": "gelu", "dim": 32, "hidden_dim": 64, "model_type": "distilbert",
    "n_heads": 4, "n_layers": 1})"));
  check_all_exact(distilled, PairKind::value_output, 1);
  check_all_exact(distilled, PairKind::query_key, 1);
  check_all_refused(distilled, PairKind::up_down, 1, "without a gate");

  Tensors o;
  const std::string layer = "model.decoder.layers.0.";
  for (const std::string name : {"q_proj", "k_proj", "v_proj", "out_proj"})
    o.linear(layer + "self_attn." + name, 32, 32);
  o.linear(layer + "fc1", 128, 32)
      .linear(layer + "fc2", 32, 128)
      .layer_norm(layer + "self_attn_layer_norm", 32)
      .layer_norm(layer + "final_layer_norm", 32);
  const auto opt = roles_of(
      o.list(),
      config_from_json(
          R"({"activation_function": "relu", "ffn_dim": 128, "hidden_size": 32, "model_type": "opt",
    "num_attention_heads": 4, "num_hidden_layers": 1})"));
  for (const PairKind kind : {PairKind::value_output, PairKind::query_key, PairKind::up_down})
    check_all_exact(opt, kind, 1);
  CHECK_FALSE(pairs_of(opt, PairKind::up_down)[0].mlp.gated);

  Tensors m;
  m.matrix("model.layers.0.attn.Wqkv", 96, 32).matrix("model.layers.0.attn.Wo", 32, 32);
  m.matrix("model.layers.0.mlp.Wi", 96, 32)
      .matrix("model.layers.0.mlp.Wo", 32, 48)
      .norm("model.layers.0.mlp_norm", 32);
  const auto modern = roles_of(
      m.list(),
      config_from_json(R"({"hidden_activation": "gelu", "hidden_size": 32, "intermediate_size": 48,
    "model_type": "modernbert", "num_attention_heads": 4, "num_hidden_layers": 1,
    "position_embedding_type": "absolute"})"));
  for (const PairKind kind : {PairKind::value_output, PairKind::query_key, PairKind::up_down})
    check_all_exact(modern, kind, 1);
  check_rotary(modern, 8, Rotary::Pairing::half_split);
}

TEST_CASE("Mixtral: each expert has a pair of its own") {
  const auto roles = roles_of(mixtral());
  check_all_exact(roles, PairKind::up_down, 2 * 3);
  check_all_exact(roles, PairKind::value_output, 2);
  const std::string expert = "model.layers.1.block_sparse_moe.experts.2.";
  CHECK(matrix_at(roles, expert + "w1.weight").role == Role::gate);
  CHECK(matrix_at(roles, expert + "w3.weight").role == Role::up);
  CHECK(matrix_at(roles, expert + "w2.weight").role == Role::down);
  CHECK(matrix_at(roles, expert + "w2.weight").expert == 2);
  CHECK(matrix_at(roles, expert + "w2.weight").layer == 1);
  CHECK(matrix_at(roles, "model.layers.1.block_sparse_moe.gate.weight").role == Role::router);
  for (const PairRole& pair : pairs_of(roles, PairKind::up_down))
    CHECK(roles.matrices[pair.first].module == roles.matrices[pair.second].module);
}

TEST_CASE("Qwen2-MoE: experts, a shared expert, and two routers") {
  const auto roles = roles_of(qwen2_moe());
  check_all_exact(roles, PairKind::up_down, 2 * 4);
  CHECK(matrix_at(roles, "model.layers.0.mlp.experts.1.up_proj.weight").expert == 1);
  CHECK(matrix_at(roles, "model.layers.0.mlp.shared_expert.up_proj.weight").expert == -1);
  CHECK(matrix_at(roles, "model.layers.0.mlp.gate.weight").role == Role::router);
  CHECK(matrix_at(roles, "model.layers.0.mlp.shared_expert_gate.weight").role == Role::router);
}

TEST_CASE("llama2.c: Meta's names, interleaved rotary pairs, tables kept") {
  const auto tensors = meta_tensors().list();
  const auto roles = roles_of(tensors, config_from_llama2c({.hidden = 32,
                                                            .intermediate = 48,
                                                            .layers = 2,
                                                            .heads = 4,
                                                            .kv_heads = 2,
                                                            .vocabulary = 64,
                                                            .context = 16,
                                                            .tied_embeddings = false}));
  for (const PairKind kind : {PairKind::value_output, PairKind::query_key, PairKind::up_down})
    check_all_exact(roles, kind, 2);
  check_rotary(roles, 8, Rotary::Pairing::interleaved);
  CHECK(matrix_at(roles, "layers.1.feed_forward.w1.weight").role == Role::gate);
  CHECK(matrix_at(roles, "output.weight").role == Role::unembedding);
  CHECK(matrix_at(roles, "tok_embeddings.weight").role == Role::embedding);
  CHECK(why_kept(roles, "freq_cis_real") == "table of rotary positions");
  CHECK(kept_role(roles, "layers.0.ffn_norm.weight") == Role::norm);

  // The same tensors beside a configuration of transformers, as Mistral publishes both: the order
  // of rows is Meta's.
  const auto mixed = roles_of(tensors, config_from_json(llama().config));
  check_all_refused(mixed, PairKind::query_key, 2, "names are Meta's");
  check_all_exact(mixed, PairKind::value_output, 2);
}

namespace {

GgufMetadata gguf_metadata(const std::string& architecture) {
  GgufMetadata metadata;
  metadata.add("general.architecture", GgufValue(architecture));
  const auto count = [&](const std::string& name, std::uint32_t value) {
    metadata.add(architecture + "." + name, GgufValue(value));
  };
  count("block_count", 2);
  count("embedding_length", 32);
  count("feed_forward_length", 48);
  count("attention.head_count", 4);
  count("attention.head_count_kv", 2);
  return metadata;
}

}  // namespace

TEST_CASE("GGUF: llama.cpp's names, rotary pairs as each of its architectures has them") {
  const auto tensors = gguf_tensors().list();
  const auto roles = roles_of(tensors, config_from_gguf(gguf_metadata("llama")));
  for (const PairKind kind : {PairKind::value_output, PairKind::query_key, PairKind::up_down})
    check_all_exact(roles, kind, 2);
  check_rotary(roles, 8, Rotary::Pairing::interleaved);
  CHECK(matrix_at(roles, "token_embd.weight").role == Role::embedding);
  CHECK(matrix_at(roles, "output.weight").role == Role::unembedding);
  CHECK(matrix_at(roles, "blk.1.attn_output.weight").role == Role::output);
  CHECK(matrix_at(roles, "blk.1.attn_output.weight").module == "blk.1");
  CHECK(why_kept(roles, "rope_freqs.weight") == "table of rotary positions");
  CHECK(kept_role(roles, "blk.0.attn_norm.weight") == Role::norm);

  const auto qwen = roles_of(tensors, config_from_gguf(gguf_metadata("qwen2")));
  check_all_exact(qwen, PairKind::query_key, 2);
  check_rotary(qwen, 8, Rotary::Pairing::half_split);
}

TEST_CASE("GGUF: stacked experts part into one matrix each") {
  const auto roles = roles_of(gguf_tensors(3).list(), config_from_gguf(gguf_metadata("llama")));
  check_all_exact(roles, PairKind::up_down, 2 * 3);
  check_all_exact(roles, PairKind::query_key, 2);
  const MatrixRole& down = matrix_at(roles, "blk.1.ffn_down_exps.weight", 0, 2);
  CHECK(down.role == Role::down);
  CHECK(down.expert == 2);
  CHECK(down.place.out == 32);
  CHECK(down.place.in == 48);
  CHECK(matrix_at(roles, "blk.1.ffn_gate_inp.weight").role == Role::router);
  for (const PairRole& pair : pairs_of(roles, PairKind::up_down))
    CHECK(roles.matrices[pair.first].expert == roles.matrices[pair.second].expert);
}

TEST_CASE("GGUF: Phi-3's up projection holds the gate as well") {
  Tensors t;
  t.matrix("blk.0.attn_qkv", 64, 32)
      .matrix("blk.0.attn_output", 32, 32)
      .matrix("blk.0.ffn_up", 96, 32)
      .matrix("blk.0.ffn_down", 32, 48);
  const auto roles = roles_of(t.list(), config_from_gguf(gguf_metadata("phi3")));
  CHECK(matrix_at(roles, "blk.0.ffn_up.weight", 0).role == Role::gate);
  CHECK(matrix_at(roles, "blk.0.ffn_up.weight", 48).role == Role::up);
  for (const PairKind kind : {PairKind::value_output, PairKind::query_key, PairKind::up_down})
    check_all_exact(roles, kind, 1);
}

TEST_CASE(
    "GGUF: gpt-oss has sinks, so rows of the attention do not sum to one, and experts that clip") {
  Tensors t = gguf_tensors(2);
  for (const std::string layer : {"blk.0.", "blk.1."}) {
    t.buffer(layer + "attn_sinks.weight", "F32", {4});
    t.add(layer + "ffn_gate_exps.bias", {2, 48})
        .add(layer + "ffn_up_exps.bias", {2, 48})
        .add(layer + "ffn_down_exps.bias", {2, 32});
  }
  const auto roles = roles_of(t.list(), config_from_gguf(gguf_metadata("gpt-oss")));
  check_all_exact(roles, PairKind::value_output, 2);
  CHECK_FALSE(pairs_of(roles, PairKind::value_output)[0].attention.rows_sum_to_one);
  check_all_refused(roles, PairKind::up_down, 4, "clipped and shifted");
  const MatrixRole& up = matrix_at(roles, "blk.0.ffn_up_exps.weight", 0, 1);
  REQUIRE(up.bias);
  CHECK(up.bias->slice == 1);
}

TEST_CASE("what tensors tell of a layer counts, whatever the configuration says") {
  const auto with = [](const std::string& name, std::vector<Index> shape) {
    Family family = llama();
    family.tensors.push_back({"model.layers.0." + name, "BF16", std::move(shape)});
    return roles_of(family);
  };
  const auto refusal = [](const ModelRoles& roles, PairKind kind) {
    return pairs_of(roles, kind)[0].refusal;
  };
  CHECK_THAT(refusal(with("self_attn.q_norm.weight", {32}), PairKind::query_key),
             Contains("normalised"));
  CHECK_THAT(refusal(with("self_attn.v_norm.weight", {8}), PairKind::value_output),
             Contains("values are normalised"));
  CHECK_THAT(refusal(with("self_attn.attn_sub_norm.weight", {32}), PairKind::value_output),
             Contains("ahead of the output projection"));
  CHECK_THAT(refusal(with("mlp.ffn_sub_norm.weight", {48}), PairKind::up_down),
             Contains("ahead of the down projection"));
  const auto sinks = with("self_attn.sinks", {4});
  CHECK(refusal(sinks, PairKind::value_output) == "");
  CHECK_FALSE(pairs_of(sinks, PairKind::value_output)[0].attention.rows_sum_to_one);
  CHECK(pairs_of(sinks, PairKind::value_output)[1].attention.rows_sum_to_one);
  // A low-rank adapter, a scale, a gate: whatever it does, it does it in this module.
  const auto unknown = with("self_attn.v_proj.lora_A.weight", {2, 32});
  CHECK_THAT(refusal(unknown, PairKind::value_output),
             Contains("v_proj.lora_A.weight does is not known"));
  CHECK(refusal(unknown, PairKind::up_down) == "");
  CHECK(pairs_of(unknown, PairKind::value_output)[1].refusal == "");
}

TEST_CASE("other architectures: what is refused, and why") {
  const auto with_type = [](const std::string& type, const std::string& more = "") {
    std::string config = llama().config;
    config.replace(config.find("\"llama\""), 7, "\"" + type + "\"" + more);
    return roles_of(llama().tensors, config_from_json(config));
  };
  check_all_refused(with_type("olmo2"), PairKind::query_key, 2, "normalised");
  check_all_exact(with_type("olmo2"), PairKind::value_output, 2);
  check_all_exact(with_type("olmo", R"(, "clip_qkv": null)"), PairKind::query_key, 2);
  const auto clipped = with_type("olmo", R"(, "clip_qkv": 8.0)");
  check_all_refused(clipped, PairKind::query_key, 2, "clipped");
  check_all_refused(clipped, PairKind::value_output, 2, "clipped");
  check_all_exact(clipped, PairKind::up_down, 2);
  check_all_refused(with_type("qwen3_next"), PairKind::value_output, 2, "gated channel by channel");
  const auto bitnet = with_type("bitnet");
  check_all_refused(bitnet, PairKind::value_output, 2, "ahead of the output projection");
  check_all_refused(bitnet, PairKind::up_down, 2, "ahead of the down projection");
  check_all_exact(bitnet, PairKind::query_key, 2);
  check_rotary(with_type("stablelm"), 2, Rotary::Pairing::half_split);
  check_rotary(with_type("stablelm", R"(, "partial_rotary_factor": 0.5)"), 4,
               Rotary::Pairing::half_split);

  const auto smollm = with_type("smollm3", R"(, "no_rope_layers": [1, 0])");
  CHECK(pairs_of(smollm, PairKind::query_key)[0].attention.rotary);
  CHECK_FALSE(pairs_of(smollm, PairKind::query_key)[1].attention.rotary);
  check_all_exact(smollm, PairKind::query_key, 2);

  for (const std::string type : {"gemma3n_text", "cohere2", "something_new"})
    for (const PairKind kind : {PairKind::value_output, PairKind::query_key, PairKind::up_down})
      check_all_refused(with_type(type), kind, 2, "the architecture is not known");
}

TEST_CASE("GPT-J: rotary pairs interleaved, over a part of each head") {
  Tensors t;
  for (const std::string name : {"q_proj", "k_proj", "v_proj", "out_proj"})
    t.matrix("transformer.h.0.attn." + name, 32, 32);
  t.unloadable("transformer.h.0.attn.bias", "BOOL", {1, 1, 16, 16})
      .add("transformer.h.0.attn.masked_bias", {});
  t.linear("transformer.h.0.mlp.fc_in", 128, 32).linear("transformer.h.0.mlp.fc_out", 32, 128);
  const auto roles = roles_of(
      t.list(), config_from_json(
                    R"({"activation_function": "gelu_new", "model_type": "gptj", "n_embd": 32,
    "n_head": 2, "n_layer": 1, "rotary_dim": 8})"));
  check_all_exact(roles, PairKind::query_key, 1);
  check_all_exact(roles, PairKind::value_output, 1);
  check_rotary(roles, 8, Rotary::Pairing::interleaved);
}

TEST_CASE("GPT-NeoX: rows that alternate head by head stay one matrix") {
  Tensors t;
  t.linear("gpt_neox.layers.0.attention.query_key_value", 96, 32)
      .linear("gpt_neox.layers.0.attention.dense", 32, 32);
  t.linear("gpt_neox.layers.0.mlp.dense_h_to_4h", 128, 32)
      .linear("gpt_neox.layers.0.mlp.dense_4h_to_h", 32, 128);
  const auto roles = roles_of(
      t.list(),
      config_from_json(R"({"hidden_act": "gelu", "hidden_size": 32, "intermediate_size": 128,
    "model_type": "gpt_neox", "num_attention_heads": 4, "num_hidden_layers": 1,
    "rotary_pct": 0.25})"));
  CHECK(matrix_at(roles, "gpt_neox.layers.0.attention.query_key_value.weight").role == Role::other);
  CHECK_THAT(matrix_at(roles, "gpt_neox.layers.0.attention.query_key_value.weight").note,
             Contains("packed"));
  CHECK(roles.pairs.size() == 1);
  check_all_refused(roles, PairKind::up_down, 1, "without a gate");
}

TEST_CASE("shapes that contradict the configuration refuse the pair") {
  ModelConfig config = config_from_json(llama().config);
  config.heads = 8;
  auto roles = roles_of(llama().tensors, config);
  check_all_refused(roles, PairKind::query_key, 2,
                    "q_proj.weight: 32 rows, but heads * head_dim is 8 * 8 = 64");
  check_all_refused(roles, PairKind::value_output, 2, "o_proj.weight: 32 columns");
  config.heads = 4;
  config.kv_heads = 4;
  check_all_refused(roles_of(llama().tensors, config), PairKind::value_output, 2,
                    "v_proj.weight: 16 rows");
  config.kv_heads = 3;
  check_all_refused(roles_of(llama_tensors({.kv_heads = 3}).list(), config), PairKind::value_output,
                    2, "heads (4) is not a multiple of kv_heads (3)");
  config.kv_heads = 2;
  config.attention.rotary->dims = 10;
  check_all_refused(roles_of(llama().tensors, config), PairKind::query_key, 2,
                    "rotary: dims is 10");
  config.attention.rotary->dims = 0;
  check_all_refused(roles_of(llama().tensors, config), PairKind::query_key, 2,
                    "how many coordinates of a head are rotated is not known");
  check_all_exact(roles_of(llama().tensors, config), PairKind::value_output, 2);

  Family family = llama();
  const auto shape_of = [&](const std::string& name) -> std::vector<Index>& {
    return std::find_if(family.tensors.begin(), family.tensors.end(),
                        [&](const auto& t) { return t.name == "model.layers.0." + name; })
        ->shape;
  };
  shape_of("mlp.up_proj.weight") = {40, 32};
  CHECK_THAT(pairs_of(roles_of(family), PairKind::up_down)[0].refusal,
             Contains("48 columns, but model.layers.0.mlp.up_proj.weight has 40 rows"));
  shape_of("mlp.up_proj.weight") = {48, 32};
  shape_of("mlp.gate_proj.weight") = {40, 32};
  CHECK_THAT(pairs_of(roles_of(family), PairKind::up_down)[0].refusal, Contains("the gate has 40"));
  shape_of("mlp.gate_proj.weight") = {48};
  CHECK_THAT(pairs_of(roles_of(family), PairKind::up_down)[0].refusal, Contains("lacks the gate"));
  shape_of("self_attn.k_proj.weight") = {16, 24};
  CHECK_THAT(pairs_of(roles_of(family), PairKind::query_key)[0].refusal, Contains("32 inputs"));
  family.tensors.push_back({"model.layers.0.self_attn.v_proj.bias", "BF16", {17}});
  const auto biased = roles_of(family);
  CHECK_FALSE(matrix_at(biased, "model.layers.0.self_attn.v_proj.weight").bias);
  CHECK_THAT(pairs_of(biased, PairKind::value_output)[0].refusal, Contains("v_proj.bias"));
  family.tensors.push_back({"model.layers.0.self_attn.o_proj", "BF16", {32, 32}});
  CHECK_THAT(pairs_of(roles_of(family), PairKind::value_output)[0].refusal, Contains("several"));
}

TEST_CASE("without a configuration there are roles, and no pair") {
  for (const Family& family : {llama(), qwen3(), phi3(), gpt2(), bert(), mixtral()}) {
    const auto roles = roles_of(family.tensors, ModelConfig{});
    CHECK(roles.matrices.size() > 4);
    for (const PairRole& pair : roles.pairs) CHECK_FALSE(pair.refusal.empty());
  }
  const auto roles = roles_of(llama().tensors, ModelConfig{});
  CHECK(matrix_at(roles, "model.layers.1.self_attn.v_proj.weight").role == Role::value);
  check_all_refused(roles, PairKind::value_output, 2, "the number of heads is not known");
  check_all_refused(roles, PairKind::up_down, 2, "the architecture is not known");
  CHECK(matrix_at(roles_of(phi3().tensors, ModelConfig{}), "model.layers.0.mlp.gate_up_proj.weight",
                  48)
            .role == Role::up);
  CHECK(matrix_at(roles_of(gpt2().tensors, ModelConfig{}), "h.0.mlp.c_proj.weight").place.in ==
        128);
}

TEST_CASE("a head size alone divides the rows; a norm across all heads does not tell it") {
  ModelConfig config = config_from_json(llama().config);
  config.heads = config.kv_heads = 0;
  const auto roles = roles_of(llama().tensors, config);
  check_all_exact(roles, PairKind::value_output, 2);
  CHECK(same_layout(pairs_of(roles, PairKind::query_key)[0].layout,
                    {.head_dim = 8, .heads = 4, .kv_heads = 2}));
  config.head_dim = 12;
  check_all_refused(roles_of(llama().tensors, config), PairKind::value_output, 2,
                    "the number of heads is not known");

  config.head_dim = 0;
  for (const Index kv_heads : {2, 4}) {
    Tensors t = llama_tensors({.kv_heads = kv_heads});
    for (const std::string layer : {"model.layers.0.", "model.layers.1."})
      t.norm(layer + "self_attn.q_norm", 32).norm(layer + "self_attn.k_norm", 8 * kv_heads);
    check_all_refused(roles_of(t.list(), config), PairKind::value_output, 2,
                      "the number of heads is not known");
  }
}

TEST_CASE("wrappers are seen through, other modules are not") {
  for (const std::string prefix : {"", "model.", "module.model.", "language_model.model.",
                                   "model.language_model.", "transformer."}) {
    INFO(prefix);
    const auto roles =
        roles_of(llama_tensors({.prefix = prefix}).list(), config_from_json(llama().config));
    check_all_exact(roles, PairKind::value_output, 2);
    CHECK(matrix_at(roles, prefix + "embed_tokens.weight").role == Role::embedding);
  }
  for (const std::string prefix :
       {"visual.", "model.vision_tower.", "mtp.", "model.audio.encoder."}) {
    INFO(prefix);
    CHECK(roles_of(llama_tensors({.prefix = prefix}).list(), config_from_json(llama().config))
              .pairs.empty());
  }
}

TEST_CASE("what cannot be read as a matrix of weights is kept") {
  Tensors t;
  t.unloadable("a", "I32", {4, 4})
      .unloadable("b", "F8_E4M3", {4, 4})
      .unloadable("c", "bool", {4, 4})
      .unloadable("d", "type 39", {4, 4})
      .add("empty", {0, 4});
  t.add("scalar", {})
      .add("cube", {2, 2, 2})
      .add("vector", {3})
      .add("huge", {Index(1) << 40, Index(1) << 40})
      .add("negative", {-1, 4});
  const auto roles = roles_of(t.list(), ModelConfig{});
  CHECK(roles.matrices.empty());
  CHECK(why_kept(roles, "b") == "its elements are F8_E4M3");
  CHECK(why_kept(roles, "empty") == "is empty");
  CHECK(why_kept(roles, "vector") == "has 1 dimension");
  for (const std::string type : {"F16", "BF16", "F32", "F64", "Q4_K", "float32", "uint8"}) {
    INFO(type);
    CHECK(roles_of(Tensors(type).add("m", {4, 4}).list(), ModelConfig{}).matrices.size() == 1);
  }
}

TEST_CASE("names are matched whole") {
  for (const std::string name :
       {"model.layers.0.self_attn.q_proj_.weight", "model.layers.x.self_attn.q_proj.weight",
        "model.layers..self_attn.q_proj.weight", "model.layers.0self_attn.q_proj.weight",
        "model.layers.0.mlp_up_proj.weight", "layers.0", "model.layers.0.self_attn",
        "blk.0.attn_q.scale", "model.", "blk.1234567890.attn_q.weight", ".weight", ""}) {
    INFO(name);
    const auto roles = roles_of(Tensors().add(name, {4, 4}).list(), ModelConfig{});
    REQUIRE(roles.matrices.size() == 1);
    CHECK(roles.matrices[0].role == Role::other);
  }
}

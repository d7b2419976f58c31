#include "cafeq/quant/gguf.hpp"

#include "laws.hpp"

using namespace cafeq;

namespace {

/// One block of each type by ggml's own encoder (libggml-base of the npm package
/// @node-llama-cpp/linux-x64 3.22.1, quantize_q4_K and its kin without an importance matrix) of the
/// first weights of bell(256, 1, 0.1f), and the 64-bit FNV-1a hash of the floats that its decoder
/// (dequantize_row_q4_K …) makes of it. Any later version of ggml gives the same: the formats are
/// frozen.
struct Golden {
  GgufType type;
  std::uint64_t hash;
  std::string_view hex;
};

constexpr std::array<Golden, 12> golden{
    {{GgufType::q8_0, 0xb641e1ad5d39265d,
      "571422d54cfa4108e41034381053d558e681168dd720210685d5eb1dcf522d132319"},
     {GgufType::q4_0, 0x5004073e2a31cc25, "4e249a155da8ac8806597bac59ddb59ea6a0"},
     {GgufType::q4_1, 0x46335c61c75b628f, "ca234eb0ab166eb8bd99076a7dbd5affc6afb7b0"},
     {GgufType::q5_0, 0xbe83b214ac4ad344, "4e20b52f39fa341bba4f48111db2d747a2ab6b2b4d30"},
     {GgufType::q5_1, 0x7721c0c357914beb, "891f4eb0bd2f39fa572ccd717c331ec5fa6ab5ee9c5f7f60"},
     {GgufType::iq4_nl, 0x2c837d838b6abcf6, "2214ab044eb7bd8905496cac49eec4aeb6a0"},
     {GgufType::iq4_xs, 0x1f6bdb1fda3b39a6,
      "5182fccce35ae009ab044db7bd8905496cac49eec4aeb6a0839b56e598beecc82126150cbd895466ce22e56684d8"
      "bdbc0aca493d0892c457e8b73a555cfb6817911a27ce6cc5e05f215bb8a46a0739ac453a66235a552a7b686427d8"
      "77cb6765bb136a22b5960cd39e429c0584080fc99d222684b61d920301d97010af12c046e54e4f8998a83d3d"},
     {GgufType::q2_k, 0x8a26378001c1967b,
      "dddf9ebe7a6b9c8acafb586d79a879474ab56baa67524586df5b9a0351b7ea2806648992960680c57dceed6fb65a"
      "0aaaf44bead517e2f7abb10f165d"
      "9bba434ff5267bc366c005b7329d96797246bd82181def20"},
     {GgufType::q3_k, 0xc85796e17daa2273,
      "29de1d65ff6f3a5b21d9e9cbde87f4dc4f8ad433e72f8656e80500c9e3af4d3109375fdca24c1b11727e3ddb8ff3"
      "2bdcd1a0bffdc1e4dc1b072576a3"
      "c681edfd50792c12e14b00ceeaf5d722191fb9b60dbf054943488eedc7d69f0617538288740539dd3da90502c00c"
      "ffffbc94"},
     {GgufType::q4_k, 0xc55b3b91e3e32b08,
      "2a0caf18fdfff6b0fbaea467f916c0c5bb468e987d19476aec8d9a3e266fa7806a61961b6b490036c7cbd5fe4c7a"
      "9b8a708c68a849567282d4648522"
      "469bf907235bb0a7961293e37fe2c94a9e4522a8529d7a666c296b8e37ac48c59c772cad7377cd0c6820758c36e5"
      "78c42757f409de63fcf615c9ef89"
      "9d130765777d3234e93579d059d030ac1993a2796b51b9b0"},
     {GgufType::q5_k, 0xf915c22f447ac254,
      "1408c618fcfff4b0faada366f527c1c5c33cd78f15d1d0f1db331b21305d1e32c114fa99598108f846ab9e675d01"
      "e39f679c0d31eb237ed4ca0a346e"
      "4ccf4e00d5c22c27c793016c9f86bbfe99e53706f019c13083adf4f4b8c90a448d37e40f4697604f3c2417d7efc5"
      "93861e7b4541b52de7cddb54d80f"
      "605b928c2be04a6ee7f19c0ad240fc0b6ecbf39950aff914bdc6f8fd1a91de123a260edbeeeb6568e35b02a0b1a1"
      "7148333655f2d6b37360"},
     {GgufType::q6_k, 0x03facccc0e16e290,
      "19e5a39e0002a9b46d8ea4a505a62950b6e366b808f1a1951bd754053b25d9860dca6a75dfa90df1716af550e583"
      "02ea81c3085472c8a71d3c4da8f1"
      "a800875b419cf1a0f9fb04e1b4a869de6895c75e4b5838051a1122e635c19b1eb7663d0d724f1a1f8dc04cb47f77"
      "a8200009f4f71c1bdb837e8cea59"
      "78653afa2a6200118279a765b7ae894a129656cfad7b35e4ea88755e6aea6c29812211934aeae65608b20625e61d"
      "065749f2e9a0a685beb224d5620e"
      "a5088566e9414560a989604d8e8f6278b9684f499d80487146a9423f6f82"}}};

std::vector<std::byte> bytes_of(std::string_view hex) {
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2)
    bytes.push_back(std::byte(16 * digit(hex[i]) + digit(hex[i + 1])));
  return bytes;
}

std::uint64_t hash_of(std::span<const float> values) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const std::byte b : std::as_bytes(values)) hash = (hash ^ std::uint64_t(b)) * 0x100000001b3u;
  return hash;
}

double error_of(std::span<const float> x, std::span<const float> y) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i)
    sum += (double(x[i]) - double(y[i])) * (double(x[i]) - double(y[i]));
  return sum;
}

}  // namespace

TEST_CASE("blocks of ggml decode to the floats that ggml makes of them, bit for bit") {
  const auto weights = test::bell(256, 1, 0.1f);
  for (const Golden& g : golden) {
    CAPTURE(gguf_type_info(g.type).name);
    const auto bytes = bytes_of(g.hex);
    const auto x =
        std::span<const float>(weights).first(std::size_t(gguf_type_info(g.type).weights));
    std::vector<float> theirs(x.size()), ours(x.size());
    gguf::dequantize_row(g.type, bytes, theirs);
    CHECK(hash_of(theirs) == g.hash);

    // The library's own encoder finds better ones.
    std::vector<std::byte> own(bytes.size());
    gguf::quantize_row(g.type, x, own);
    gguf::dequantize_row(g.type, own, ours);
    CHECK(error_of(x, ours) < error_of(x, theirs));
  }
}

TEST_CASE("every bit of a block is part of one code or parameter") {
  for (const Golden& g : golden)
    gguf::with_quantizer(g.type, [&](const auto& q) {
      using Q = std::remove_cvref_t<decltype(q)>;
      using Block = GgufBlock<Q>;
      CAPTURE(gguf_type_info(g.type).name);
      CHECK(Block::type == g.type);
      CHECK(double(q.bits) + double(param_bits(q)) / double(q.group) ==
            gguf_type_info(g.type).bits_per_weight());
      const CounterRng rng(1);
      for (std::uint64_t block = 0; block < 20; ++block) {
        std::array<std::uint8_t, std::size_t(Block::bytes)> bytes, again;
        for (std::size_t i = 0; i < bytes.size(); ++i)
          bytes[i] = std::uint8_t(rng.below(1000 * block + i, 256));
        again.fill(0xa5);
        std::array<std::uint8_t, std::size_t(Block::weights)> codes;
        std::array<typename Q::Params, std::size_t(Block::groups)> params;
        codes.fill(0xff);
        Block::read(bytes.data(), codes.data(), params.data());
        CHECK(*std::max_element(codes.begin(), codes.end()) < (1 << q.bits));
        Block::write(codes.data(), params.data(), again.data());
        CHECK(again == bytes);
      }
    });
}

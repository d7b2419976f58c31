#include "engine/sensitivities.hpp"

#include "accuracy/overlay.hpp"
#include "cafeq/core/thread_pool.hpp"
#include "engine/own_metric.hpp"
#include "support/catch.hpp"
#include "tiny_model.hpp"

using namespace engine;
using namespace engine::test;

namespace {

struct Subject {
  TemporaryDirectory directory;
  cafeq::ModelFile file;
  Model model;
  std::vector<Tokens> texts;

  Subject() : file(written(directory)), model(load_model(file)) {
    const Transformer transformer(model, {});
    texts = metric_texts(transformer, 1, {.count = 3, .length = 9, .seed = 4});
  }
  std::vector<Sensitivity> measure(const SensitivityOptions& options,
                                   cafeq::ExecutorRef threads = {}) const {
    return sensitivities(file, Transformer(model, threads), texts, options);
  }

 private:
  static std::string written(const TemporaryDirectory& directory) {
    write_hugging_face(directory, tiny_model());
    return directory.path();
  }
};

}  // namespace

TEST_CASE("a sensitivity is what the whole model loses by the same noise") {
  const Subject subject;
  const SensitivityOptions options{.energy = 0.01, .seed = 7};
  const auto found = subject.measure(options);
  REQUIRE(found.size() == 14);  // two layers
  const Transformer transformer(subject.model, {});
  std::vector<Tokens> longer = subject.texts;  // whose last token nothing is compared for
  for (Tokens& text : longer) text.push_back(0);
  const Reference reference(transformer, longer);
  for (std::size_t m = 0; m < found.size(); ++m) {
    const auto& place = found[m].place;
    INFO(place.tensor);
    const Matrix<float> W = detail::with_noise(load_matrix(subject.file, place), options.energy,
                                               options.seed, m + 2, {});
    cafeq::accuracy::Overlay overlay(subject.file);
    overlay.replace(place, W.view());
    const Model noisy = load_model(overlay, "noisy", {});
    const auto compared = reference.compare(Transformer(noisy, {}), {});
    CHECK(found[m].value > 0);
    CHECK(found[m].value ==
          Approx(mean_of(compared.divergences).value / options.energy).epsilon(1e-3));
  }
}

TEST_CASE("the loss is in proportion to small noise, and the same for any number of threads") {
  const Subject subject;
  const auto some = subject.measure({.energy = 1e-4}), less = subject.measure({.energy = 2.5e-5});
  cafeq::ThreadPool threads(3);
  const auto parallel = subject.measure({.energy = 1e-4}, threads);
  for (std::size_t m = 0; m < some.size(); ++m) {
    INFO(some[m].place.tensor);
    CHECK(less[m].value == Approx(some[m].value).epsilon(0.2));
    CHECK(parallel[m].value == some[m].value);
  }
}

TEST_CASE("noise has the energy that is asked for, and sensitivities say what they are of") {
  const Subject subject;
  const auto matrices = matrices_of_layers(subject.file);
  const Matrix<float> W = load_matrix(subject.file, matrices[0].place);
  const Matrix<float> noisy = detail::with_noise(W, 0.02, 3, 5, {});
  double energy = 0, all = 0;
  for (Index i = 0; i < W.size(); ++i) {
    energy += std::pow(double(noisy.data()[i]) - double(W.data()[i]), 2);
    all += double(W.data()[i]) * double(W.data()[i]);
  }
  CHECK(energy / all == Approx(0.02).epsilon(0.2));

  const SensitivityOptions options;
  const auto json = to_json(subject.measure(options), subject.file, options);
  CHECK(json["model"] == cafeq::fingerprint_of(subject.file));
  REQUIRE(json["matrices"].size() == matrices.size());
  CHECK(json["matrices"][0]["tensor"] == matrices[0].place.tensor);
  CHECK(json["matrices"][0]["rows"] == matrices[0].place.out);
  CHECK(json["matrices"][0]["sensitivity"].get<double>() > 0);
}

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
  cafeq::Sensitivities measure(const SensitivityOptions& options,
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
  const auto measured = subject.measure(options);
  CHECK(measured.model() == cafeq::fingerprint_of(subject.file));
  const auto found = measured.all();
  const auto matrices = matrices_to_disturb(subject.file);
  REQUIRE(found.size() == matrices.size());
  CHECK(found.size() == 14 + (subject.model.own_head ? 2u : 1u));  // two layers
  const Transformer transformer(subject.model, {});
  std::vector<Tokens> longer = subject.texts;  // whose last token nothing is compared for
  for (Tokens& text : longer) text.push_back(0);
  const Reference reference(transformer, longer);
  for (std::size_t m = 0; m < found.size(); ++m) {
    INFO(found[m].tensor);
    CHECK(measured.find(matrices[m]) == found[m].value);
    const auto& place = matrices[m].place;
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
  for (std::size_t m = 0; m < some.all().size(); ++m) {
    INFO(some.all()[m].tensor);
    CHECK(less.all()[m].value == Approx(some.all()[m].value).epsilon(0.2));
    CHECK(parallel.all()[m].value == some.all()[m].value);
  }
}

TEST_CASE("noise has the energy that is asked for") {
  const Subject subject;
  const Matrix<float> W = load_matrix(subject.file, matrices_of_layers(subject.file)[0].place);
  const Matrix<float> noisy = detail::with_noise(W, 0.02, 3, 5, {});
  double energy = 0, all = 0;
  for (Index i = 0; i < W.size(); ++i) {
    energy += std::pow(double(noisy.data()[i]) - double(W.data()[i]), 2);
    all += double(W.data()[i]) * double(W.data()[i]);
  }
  CHECK(energy / all == Approx(0.02).epsilon(0.2));
}

TEST_CASE("a run is told what it measures, and gets the file") {
  const Subject subject;
  const TemporaryDirectory out;
  const SensitivityOptions options{.count = 2, .length = 6, .seed = 3};
  const auto maker = sensitivity_maker(subject.directory.path(), options, {});
  CHECK(maker.memory > 4 * 4000);  // of the weights alone
  SensitivityOptions other = options;
  other.seed = 4;
  CHECK(sensitivity_maker(subject.directory.path(), other, {}).description != maker.description);
  std::vector<std::string> stages;
  maker.make(out / "file", [&](std::string_view what, double done, double all) {
    if (stages.empty() || stages.back() != what) stages.emplace_back(what);
    CHECK(done <= all);
  });
  CHECK(stages == std::vector<std::string>{"writing short texts", "disturbing matrices"});
  const auto read = cafeq::read_sensitivities(out / "file");
  CHECK(read.model() == cafeq::fingerprint_of(subject.file));
  for (const auto& matrix : matrices_to_disturb(subject.file)) CHECK(read.find(matrix) > 0.0);
  CHECK_THAT(out.read("file"), Contains("\"tokens\": 6"));
}

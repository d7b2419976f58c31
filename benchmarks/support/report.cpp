// Joins the rows of all benchmark programs into one result.json and one table: bench_report
// OUT_DIRECTORY ROWS.json...
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

namespace {

using Json = nlohmann::ordered_json;

std::string number(const Json& value) {
  if (!value.is_number()) return "";
  char text[32];
  std::snprintf(text, sizeof text, value.get<double>() >= 100 ? "%.0f" : "%.3g",
                value.get<double>());
  return text;
}

std::string text(const Json& value) { return value.is_string() ? value.get<std::string>() : ""; }

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: bench_report OUT_DIRECTORY ROWS.json...\n";
    return 2;
  }
  Json all = Json::array();
  std::string table =
      "| kernel | case | value | unit | limit | of limit | peer | times peer "
      "|\n|---|---|---|---|---|---|---|---|\n";
  for (int i = 2; i < argc; ++i) {
    std::ifstream file(argv[i]);
    const Json rows = Json::parse(file, nullptr, false);
    if (!rows.is_array()) {
      std::cerr << argv[i] << " holds no rows\n";
      return 1;
    }
    for (const Json& row : rows) {
      Json ordered;
      for (const char* key :
           {"kernel", "case", "value", "unit", "limit", "limit_ratio", "peer", "peer_ratio"})
        ordered[key] = row.at(key);
      table += "| " + text(row["kernel"]) + " | " + text(row["case"]) + " | " +
               number(row["value"]) + " | " + text(row["unit"]) + " | " + text(row["limit"]) +
               " | " + number(row["limit_ratio"]) + " | " + text(row["peer"]) + " | " +
               number(row["peer_ratio"]) + " |\n";
      all.push_back(std::move(ordered));
    }
  }
  const std::string directory = argv[1];
  std::ofstream json(directory + "/result.json");
  json << all.dump(1) << '\n';
  std::ofstream markdown(directory + "/result.md");
  markdown << table;
  if (!json.flush() || !markdown.flush()) {
    std::cerr << "cannot write to " << directory << '\n';
    return 1;
  }
  std::cout << table;
  return 0;
}

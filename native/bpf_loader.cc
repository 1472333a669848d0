// SPDX-License-Identifier: Apache-2.0
#include "bpf_loader.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <linux/btf.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstring>
#include <memory>
#include <mutex>
#include <sstream>
#include <vector>

#include "fault.h"

namespace ambient {

namespace {

/** A verifier log can have hundreds of thousands of lines. */
constexpr size_t kMaxLog = 4 << 20;
/** __LIBBPF_ERRNO__START */
constexpr int kLibbpfErrno = 4000;
thread_local std::string* currentLog = nullptr;

int collectLog(libbpf_print_level level, const char* format, va_list arguments) {
    if (level == LIBBPF_DEBUG || currentLog == nullptr || currentLog->size() > kMaxLog) return 0;
    va_list again;
    va_copy(again, arguments);
    const int size = std::vsnprintf(nullptr, 0, format, again);
    va_end(again);
    if (size <= 0) return 0;
    std::vector<char> text(static_cast<size_t>(size) + 1);
    std::vsnprintf(text.data(), text.size(), format, arguments);
    currentLog->append(text.data());
    return 0;
}

/** What libbpf says while it lives. */
class LogScope {
  public:
    LogScope() {
        quietLibbpf();
        currentLog = &text_;
    }
    ~LogScope() { currentLog = nullptr; }
    LogScope(const LogScope&) = delete;
    LogScope& operator=(const LogScope&) = delete;
    const std::string& text() const { return text_; }

  private:
    std::string text_;
};

struct CloseObject {
    void operator()(bpf_object* object) const { bpf_object__close(object); }
};
using ObjectPointer = std::unique_ptr<bpf_object, CloseObject>;

/** Where `knobs` lies in .rodata: constants of the compiler's making may come first. */
size_t knobsOffset(const bpf_object* object, const std::string& name) {
    const btf* types = bpf_object__btf(object);
    const int section =
        types == nullptr ? -1 : btf__find_by_name_kind(types, ".rodata", BTF_KIND_DATASEC);
    if (section < 0) fail(EINVAL, "bpf", "find .rodata of BPF object " + name);
    const btf_type* type = btf__type_by_id(types, static_cast<__u32>(section));
    const btf_var_secinfo* variable = btf_var_secinfos(type);
    for (int i = 0; i < btf_vlen(type); i++, variable++) {
        const btf_type* of = btf__type_by_id(types, variable->type);
        if (std::strcmp(btf__name_by_offset(types, of->name_off), "knobs") == 0)
            return variable->offset;
    }
    fail(EINVAL, "bpf", "find the knobs of BPF object " + name);
}

void writeKnobs(bpf_object* object, const BpfObject& source, const ambient_knobs& knobs) {
    bpf_map* map = nullptr;
    bpf_object__for_each_map(map, object) {
        if (std::strstr(bpf_map__name(map), ".rodata") == nullptr) continue;
        size_t size = 0;
        const void* value = bpf_map__initial_value(map, &size);
        const size_t offset = knobsOffset(object, source.name);
        if (value == nullptr || offset + sizeof(knobs) > size) break;
        std::vector<char> bytes(static_cast<const char*>(value),
                                static_cast<const char*>(value) + size);
        std::memcpy(bytes.data() + offset, &knobs, sizeof(knobs));
        if (bpf_map__set_initial_value(map, bytes.data(), bytes.size()) == 0) return;
        break;
    }
    fail(EINVAL, "bpf", "write the knobs of BPF object " + source.name);
}

ObjectPointer openObject(const BpfObject& source, const ambient_knobs* knobs,
                         const std::string& mapsDir) {
    LIBBPF_OPTS(bpf_object_open_opts, options);
    options.object_name = source.name.c_str();
    if (!mapsDir.empty()) options.pin_root_path = mapsDir.c_str();
    ObjectPointer object(bpf_object__open_mem(source.data, source.size, &options));
    // libbpf has numbers of its own, for files that are none of its kind.
    if (object == nullptr)
        fail(errno < kLibbpfErrno ? errno : EINVAL, "bpf", "open BPF object " + source.name);
    bpf_map* map = nullptr;
    // Without a place to pin, every map is made anew.
    if (mapsDir.empty())
        bpf_object__for_each_map(map, object.get()) bpf_map__set_pin_path(map, nullptr);
    if (knobs != nullptr) writeKnobs(object.get(), source, *knobs);
    return object;
}

std::vector<std::string> programNames(bpf_object* object) {
    std::vector<std::string> names;
    bpf_program* program = nullptr;
    bpf_object__for_each_program(program, object) names.emplace_back(bpf_program__name(program));
    return names;
}

/** Loads those of the programs that are not in `without`. Returns 0 or a negative errno. */
int tryLoad(const BpfObject& source, const ambient_knobs* knobs, const std::string& mapsDir,
            const std::map<std::string, std::string>& without, LoadedPrograms& result) {
    ObjectPointer object = openObject(source, knobs, mapsDir);
    bpf_program* program = nullptr;
    bpf_object__for_each_program(program, object.get()) {
        bpf_program__set_autoload(program, without.count(bpf_program__name(program)) == 0);
    }
    if (const int error = bpf_object__load(object.get()); error != 0) return error;
    bpf_object__for_each_program(program, object.get()) {
        if (!bpf_program__autoload(program)) continue;
        const int fd = ::fcntl(bpf_program__fd(program), F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
            fail(errno, "fcntl", "keep BPF program " + std::string(bpf_program__name(program)));
        result.programs.emplace(bpf_program__name(program), UniqueFd(fd));
    }
    return 0;
}

LoadedPrograms load(const BpfObject& source, const ambient_knobs* knobs,
                    const std::string& mapsDir) {
    LoadedPrograms result;
    {
        LogScope log;
        if (tryLoad(source, knobs, mapsDir, {}, result) == 0) return result;
    }
    // One of them, or all? Each by itself says so.
    const std::vector<std::string> names = programNames(openObject(source, knobs, mapsDir).get());
    for (const std::string& name : names) {
        std::map<std::string, std::string> others;
        for (const std::string& other : names)
            if (other != name) others.emplace(other, "");
        LogScope log;
        LoadedPrograms alone;
        const int error = tryLoad(source, knobs, mapsDir, others, alone);
        if (error == 0) continue;
        result.refused.emplace(name, std::string(std::strerror(-error)) + ": " +
                                         summarizeVerifierLog(log.text()));
    }
    LogScope log;
    if (const int error = tryLoad(source, knobs, mapsDir, result.refused, result); error != 0) {
        fail(-error, "bpf", "load BPF object " + source.name, summarizeVerifierLog(log.text()));
    }
    return result;
}

} // namespace

void quietLibbpf() {
    static std::once_flag once;
    std::call_once(once, [] { libbpf_set_print(collectLog); });
}

LoadedPrograms loadObject(const BpfObject& object, const ambient_knobs& knobs,
                          const std::string& mapsDir) {
    return load(object, &knobs, mapsDir);
}

LoadedPrograms loadForeignObject(const BpfObject& object) {
    return load(object, nullptr, "");
}

std::string summarizeVerifierLog(const std::string& log) {
    std::istringstream lines(log);
    std::string line, last, cause;
    size_t count = 0;
    while (std::getline(lines, line)) {
        if (line.empty()) continue;
        count++;
        const bool ofLibbpf = line.rfind("libbpf: ", 0) == 0;
        // The verifier closes with statistics; what stands before them is why.
        if (!ofLibbpf && line.rfind("processed ", 0) != 0 &&
            line.rfind("verification time", 0) != 0 && line.rfind("stack depth", 0) != 0 &&
            line.rfind("-- ", 0) != 0) {
            last = line;
        }
        if (ofLibbpf && cause.empty()) cause = line.substr(8);
    }
    if (last.empty()) return cause.empty() ? "the kernel did not say why" : cause;
    const size_t omitted = count > 1 ? count - 1 : 0;
    return last + " (" + std::to_string(omitted) + " lines omitted)";
}

} // namespace ambient

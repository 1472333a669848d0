// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>

#include "../bpf/abi.h"
#include "bpf_objects.h"
#include "unique_fd.h"

namespace ambient {

/** Programs that a kernel took, and why it refused the others. */
struct LoadedPrograms {
    std::map<std::string, UniqueFd> programs;
    std::map<std::string, std::string> refused;
};

/** Otherwise libbpf writes to stderr, also that an interface has no TC filter. */
void quietLibbpf();

/**
 * Loads an object's programs. Maps are taken from `mapsDir`, or made and pinned there; "" pins
 * nothing. A refused program does not keep the others from being loaded. @throws Fault when the
 * object itself or a map is refused.
 */
LoadedPrograms loadObject(const BpfObject& object, const ambient_knobs& knobs,
                          const std::string& mapsDir);

/** The same for an object that is not ours: no knobs, nothing pinned. */
LoadedPrograms loadForeignObject(const BpfObject& object);

/** Cause and last line of what the kernel said, and how much of it was left out. */
std::string summarizeVerifierLog(const std::string& log);

} // namespace ambient

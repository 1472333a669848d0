// SPDX-License-Identifier: Apache-2.0
// What goes to stdout: a result, an error or the list of versions. Each returns the exit status.
#ifndef CNI_RESULT_H
#define CNI_RESULT_H

#include "netconf.h"

// prevResult, byte for byte where its version is the configuration's; without one an empty result.
int result_previous(const struct netconf* conf);
int result_fault(const char* cni_version, const struct fault* fault);
int result_versions(void);

#endif

// SPDX-License-Identifier: Apache-2.0
// A socket load balancer as Cilium's: connect() to SERVICE goes to BACKEND instead, in the whole
// cgroup and below. Says "ready", and takes the programs away at the end of stdin.
//
// usage: lab-balancer OBJECT CGROUP SERVICE4 BACKEND4 SERVICE6 BACKEND6
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void die(const char* what) {
    perror(what);
    exit(1);
}

/* IPv4 as its last word, the rest zero. */
static void parse(const char* text, uint32_t word[4]) {
    memset(word, 0, 16);
    if (inet_pton(AF_INET, text, &word[3]) != 1 && inet_pton(AF_INET6, text, word) != 1) die(text);
}

int main(int argc, char** argv) {
    uint32_t service[4], backend[4];
    char byte;
    if (argc != 7) return 2;
    struct bpf_object* object = bpf_object__open_file(argv[1], NULL);
    if (!object || bpf_object__load(object) < 0) die(argv[1]);
    const int backends = bpf_object__find_map_fd_by_name(object, "backends");
    for (int i = 3; i < 7; i += 2) {
        parse(argv[i], service);
        parse(argv[i + 1], backend);
        if (bpf_map_update_elem(backends, service, backend, BPF_ANY) < 0) die("backends");
    }
    const int cgroup = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (cgroup < 0) die(argv[2]);
    struct bpf_program* program;
    bpf_object__for_each_program(program, object) {
        if (!bpf_program__attach_cgroup(program, cgroup)) die(bpf_program__name(program));
    }
    puts("ready");
    fflush(stdout);
    while (read(STDIN_FILENO, &byte, 1) > 0)
        continue;
    return 0;
}

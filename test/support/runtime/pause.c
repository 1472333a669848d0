// SPDX-License-Identifier: Apache-2.0
/* The program of a pod's sandbox: holds its namespaces, reaps what is orphaned in a shared pid
 * namespace. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void reap(int signal) {
    (void)signal;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
}

static void leave(int signal) {
    (void)signal;
    _exit(0);
}

int main(void) {
    const struct sigaction reaping = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP};
    const struct sigaction leaving = {.sa_handler = leave};

    if (sigaction(SIGCHLD, &reaping, NULL) || sigaction(SIGTERM, &leaving, NULL) ||
        sigaction(SIGINT, &leaving, NULL))
        return 1;
    for (;;)
        pause();
}

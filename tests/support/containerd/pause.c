/* The only program of the test's image: it waits, as Kubernetes' own pause container does. */
#include <signal.h>
#include <unistd.h>

static void end(int signal) {
    (void)signal;
    _exit(0);
}

int main(void) {
    /* The first process of a pid namespace gets only the signals that it handles. */
    signal(SIGTERM, end);
    signal(SIGINT, end);
    for (;;)
        pause();
}

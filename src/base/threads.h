/*
 * What all threads have in common. Knows nothing of who they are.
 */
#ifndef MULL_THREADS_H
#define MULL_THREADS_H

#include <signal.h>

/**
 * The one signal that no thread of the library blocks: for a program that has to make each of its
 * threads do something (the machine's process, for its sandbox). It is sent to single threads only,
 * by whoever handles it.
 */
#define MULL_EVERY_THREAD (SIGRTMAX - 1)

#endif

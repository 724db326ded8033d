/*
 * The exit statuses of mullion-vmm and of `mullion run`, which passes them on. Part of the
 * interface (mullion-run(1)): numbers never change their meaning.
 */
#ifndef MULL_VMM_STATUS_H
#define MULL_VMM_STATUS_H

enum {
    VMM_STATUS_POWEROFF = 0,     /* the guest switched itself off, or the user quit */
    VMM_STATUS_HOST_ERROR = 1,   /* bad input, or the host could not go on */
    VMM_STATUS_USAGE = 2,        /* the command line makes no sense */
    VMM_STATUS_RESET = 3,        /* the guest asked for a reset, with --no-reboot */
    VMM_STATUS_TRIPLE_FAULT = 4, /* a vCPU shut down */
    VMM_STATUS_PANIC = 5,        /* the guest's kernel panicked */
    VMM_STATUS_TERMINATED = 143, /* 128 + SIGTERM: a second signal pulled the plug */
};

#endif

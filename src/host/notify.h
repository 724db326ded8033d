/*
 * Tells the service manager that started us how we are: sd_notify(3)'s protocol, a datagram to the
 * socket that $NOTIFY_SOCKET names. Where nobody asks, nothing is told.
 */
#ifndef MULL_HOST_NOTIFY_H
#define MULL_HOST_NOTIFY_H

/** Take where to tell out of the environment, so that nobody we start tells in our name. Before
 *  there are threads. @return the place, malloc'ed, or NULL: nobody asks */
char *host_notify_take(void);

/** Tell it. @param to  what host_notify_take() has said; NULL: nothing is done
 *  @param lines  "READY=1", ... one a line @return 0 or a negative errno */
int host_notify(const char *to, const char *lines);

#endif

/* What the test of virtual sockets runs in a guest: connects to port 4321 of the host, sends a
 * megabyte and reads it back; then listens on port 1234 and answers what comes turned over. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#define SIZE (1 << 20)

static int fail(const char *what)
{
    perror(what);
    return 1;
}

static int write_all(int fd, const unsigned char *bytes, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = write(fd, bytes + done, size - done);
        if (n <= 0)
            return fail("write");
        done += (size_t)n;
    }
    return 0;
}

/* Connect, send a megabyte and read the same again while it is being sent. */
static int outward(void)
{
    static unsigned char out[SIZE], in[SIZE];
    struct sockaddr_vm to = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = 4321};
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
    size_t got = 0;

    for (unsigned i = 0; i < SIZE; i++)
        out[i] = (unsigned char)(i * 7 + (i >> 8));
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)))
        return fail("connect");
    pid_t writer = fork();
    if (!writer) {
        if (write_all(fd, out, SIZE))
            _exit(1);
        shutdown(fd, SHUT_WR);
        _exit(0);
    }
    for (ssize_t n; got < SIZE && (n = read(fd, in + got, SIZE - got)) > 0;)
        got += (size_t)n;
    /* The host answers our end with its own. */
    int ended = read(fd, &(char){0}, 1) == 0;
    printf("check: outward %zu %d\n", got, ended && !memcmp(in, out, SIZE));
    close(fd);
    to.svm_port = 4322; /* nobody listens there */
    int nobody = socket(AF_VSOCK, SOCK_STREAM, 0);
    printf("check: refused %d\n", connect(nobody, (struct sockaddr *)&to, sizeof(to)) != 0);
    fflush(stdout);
    return 0;
}

/* Until the other side ends; in a process of its own. */
static void answer(int peer)
{
    unsigned char buf[4096];
    ssize_t n;

    while ((n = read(peer, buf, sizeof(buf))) > 0) {
        for (ssize_t i = 0; i < n; i++)
            buf[i] ^= 0xff;
        if (write_all(peer, buf, (size_t)n))
            _exit(1);
    }
    _exit(0);
}

static int inward(unsigned count)
{
    struct sockaddr_vm at = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = 1234};
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0), status, bad = 0;

    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) || listen(fd, 64))
        return fail("listen");
    printf("check: listening\n");
    fflush(stdout);
    for (unsigned i = 0; i < count; i++) {
        int peer = accept(fd, NULL, NULL);
        if (peer < 0)
            return fail("accept");
        if (!fork())
            answer(peer);
        close(peer);
    }
    while (wait(&status) > 0)
        bad += status != 0;
    printf("check: inward %d\n", bad);
    return 0;
}

int main(int argc, char **argv)
{
    return argc == 2 ? outward() || inward((unsigned)atoi(argv[1])) : 2;
}

/* What a service manager is told (sd_notify(3)), by sockets of ours in its place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "host/notify.h"

static int listen_at(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    size_t n = strlen(name);
    assert_true(fd >= 0);
    memcpy(address.sun_path, name, n);
    if (*name == '@')
        address.sun_path[0] = '\0';
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + (*name == '/'));
    assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
    return fd;
}

static void assert_told(int fd, const char *text)
{
    char got[64];
    ssize_t n = recv(fd, got, sizeof(got) - 1, MSG_DONTWAIT);
    assert_true(n > 0);
    got[n] = '\0';
    assert_string_equal(got, text);
}

static void tells(void **state)
{
    char folder[] = "/tmp/mull-notify-XXXXXX", path[64], name[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/socket", folder);
    snprintf(name, sizeof(name), "@mull-notify-%d", (int)getpid());
    const char *const places[] = {path, name};
    for (unsigned i = 0; i < 2; i++) {
        int fd = listen_at(places[i]);
        setenv("NOTIFY_SOCKET", places[i], 1);
        char *to = host_notify_take();
        assert_null(getenv("NOTIFY_SOCKET")); /* no child tells in our name */
        assert_string_equal(to, places[i]);
        assert_int_equal(host_notify(to, "READY=1\nSTATUS=here"), 0);
        assert_told(fd, "READY=1\nSTATUS=here");
        free(to);
        close(fd);
    }
    unlink(path);
    rmdir(folder);
}

static void tells_nobody(void **state)
{
    char longest[256];
    memset(longest, 'a', sizeof(longest));
    longest[0] = '/';
    longest[255] = '\0';
    unsetenv("NOTIFY_SOCKET");
    assert_null(host_notify_take());
    setenv("NOTIFY_SOCKET", "", 1);
    assert_null(host_notify_take());
    assert_int_equal(host_notify(NULL, "READY=1"), 0);
    assert_int_equal(host_notify("vsock:2:1", "READY=1"), -EINVAL);
    assert_int_equal(host_notify("/", "READY=1"), -EINVAL);
    assert_int_equal(host_notify(longest, "READY=1"), -EINVAL);
    assert_int_equal(host_notify("/tmp/nobody/is/here", "READY=1"), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tells),
        cmocka_unit_test(tells_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

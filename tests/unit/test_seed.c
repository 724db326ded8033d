/*
 * Seeds for cloud-init (src/host/seed.c): what is written, and what is refused.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "host/seed.h"

static char path[] = "/tmp/mullion-seed-XXXXXX";

/* The image's bytes: small, and the files lie in them as they are. */
static char *written(const char *setup, const char *hash)
{
    struct mull_error err = {0};
    json_t *o = json_loads(setup, 0, NULL);
    static char data[1 << 20];

    assert_non_null(o);
    int ret = host_seed_write(path, "8f3c", "web-1", o, hash, &err);
    json_decref(o);
    if (ret)
        fail_msg("%s", err.message);
    FILE *f = fopen(path, "r");
    size_t n = fread(data, 1, sizeof(data) - 1, f);
    fclose(f);
    assert_true(n > 32 * 2048);
    for (size_t i = 0; i < n; i++)
        data[i] = data[i] ? data[i] : ' ';
    data[n] = '\0';
    return data;
}

static void writes_a_user(void **state)
{
    const char *iso =
        written("{\"user\": \"ann\", \"password\": \"secret: \\\"x\", \"packages\": "
                "[\"nginx\"], \"ssh_keys\": [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 ann\"]}",
                "$y$j9T$hash");

    assert_non_null(strstr(iso, "#cloud-config\n{"));
    assert_non_null(strstr(iso, "\"name\": \"ann\""));
    assert_non_null(strstr(iso, "\"hashed_passwd\": \"$y$j9T$hash\""));
    assert_non_null(strstr(iso, "ssh-ed25519 AAAA"));
    assert_non_null(strstr(iso, "nginx"));
    assert_non_null(strstr(iso, "\"instance-id\": \"8f3c\""));
    assert_non_null(strstr(iso, "\"local-hostname\": \"web-1\""));
    assert_null(strstr(iso, "secret"));
}

static void writes_user_data_as_it_is(void **state)
{
    const char *iso =
        written("{\"user_data\": \"#!/bin/sh\\necho hello\\n\", \"hostname\": \"db\"}", NULL);

    assert_non_null(strstr(iso, "#!/bin/sh\necho hello\n"));
    assert_non_null(strstr(iso, "\"local-hostname\": \"db\""));
    assert_null(strstr(iso, "#cloud-config"));
}

static void refuses_what_could_do_harm(void **state)
{
    static const char *const bad[] = {
        "[]",
        "{\"user\": \"Ann\"}",
        "{\"user\": \"-x\"}",
        "{\"user\": 5}",
        "{\"user\": \"\"}",
        "{\"password\": \"x\"}",
        "{\"user\": \"a\", \"password\": \"x\\ny\"}",
        "{\"hostname\": \"-a\"}",
        "{\"hostname\": \"a..b\"}",
        "{\"hostname\": \"a_b\"}",
        "{\"hostname\": \"a-\"}",
        "{\"packages\": [\"-o\"]}",
        "{\"packages\": [\"a b\"]}",
        "{\"packages\": \"nginx\"}",
        "{\"ssh_keys\": [\"ssh-rsa AAAA\\nroot\"]}",
        "{\"ssh_keys\": [\"x\"]}",
        "{\"user\": \"a\", \"user_data\": \"#cloud-config\"}",
        "{\"user_data\": \"\"}",
        "{\"colour\": 1}",
    };

    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct mull_error err = {0};
        json_t *o = json_loads(bad[i], 0, NULL);

        assert_non_null(o);
        if (host_seed_check(o, &err) != -EINVAL || strncmp(err.message, "cloud_init", 10))
            fail_msg("%s: '%s'", bad[i], err.message);
        json_decref(o);
    }
}

static int begin(void **state)
{
    int fd = mkstemp(path);

    return fd < 0 ? -1 : close(fd);
}

static int end(void **state)
{
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_a_user),
        cmocka_unit_test(writes_user_data_as_it_is),
        cmocka_unit_test(refuses_what_could_do_harm),
    };

    return cmocka_run_group_tests(tests, begin, end);
}

/*
 * The monitor prompt: a few commands, each one JSON-RPC request; answers are printed when they
 * come.
 */
#include "cli/monitor.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const struct {
    const char *name, *method, *help;
} commands[] = {
    {"info", "status", "the machine's state"},
    {"stats", "stats", "counters of the virtual CPUs"},
    {"pause", "pause", "stop the guest's time"},
    {"resume", "resume", "let it go on"},
    {"powerdown", "powerdown", "press the power button"},
    {"reset", "reset", "press the reset button"},
    {"quit", "quit", "pull the plug and leave"},
};

static void prompt(void)
{
    fputs("(mullion) ", stdout);
    fflush(stdout);
}

void monitor_toggle(struct monitor *m)
{
    m->active = !m->active;
    m->len = 0;
    if (m->active) {
        puts("\nmonitor: 'help' shows the commands, Ctrl-A c goes back to the guest");
        prompt();
    } else {
        puts("\n[guest]");
    }
    fflush(stdout);
}

void monitor_request(struct monitor *m, const char *method)
{
    char text[128];
    int n = snprintf(text, sizeof(text), "{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"%s\"}\n",
                     ++m->id, method);
    if (send(m->control_fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) != n)
        puts("monitor: the machine does not listen");
}

static void help(void)
{
    for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        printf("  %-10s %s\n", commands[i].name, commands[i].help);
    printf("  %-10s %s\n", "help", "this list");
}

static void execute(struct monitor *m)
{
    m->line[m->len] = '\0';
    m->len = 0;
    char *word = strtok(m->line, " \t");
    if (!word) {
        prompt();
        return;
    }
    if (!strcmp(word, "help") || !strcmp(word, "?")) {
        help();
        prompt();
        return;
    }
    for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (!strcmp(word, commands[i].name)) {
            monitor_request(m, commands[i].method);
            return; /* the answer prints the prompt */
        }
    }
    printf("monitor: %s: no such command; try 'help'\n", word);
    prompt();
}

void monitor_key(struct monitor *m, unsigned char key)
{
    if (key == '\r' || key == '\n') {
        putchar('\n');
        execute(m);
    } else if (key == 0x7f || key == '\b') {
        if (m->len) {
            m->len--;
            fputs("\b \b", stdout);
        }
    } else if (key == 0x15) { /* Ctrl-U */
        while (m->len) {
            m->len--;
            fputs("\b \b", stdout);
        }
    } else if (key == 0x04) { /* Ctrl-D */
        monitor_toggle(m);
    } else if (key >= ' ' && key < 0x7f && m->len + 1 < sizeof(m->line)) {
        m->line[m->len++] = (char)key;
        putchar(key);
    }
    fflush(stdout);
}

static void print_value(const char *name, json_t *value, int indent)
{
    const char *key;
    json_t *member;
    size_t i;
    if (json_is_object(value)) {
        if (*name)
            printf("%*s%s:\n", indent, "", name);
        json_object_foreach(value, key, member) print_value(key, member, indent + 2);
    } else if (json_is_array(value)) {
        json_array_foreach(value, i, member)
        {
            char item[32];
            snprintf(item, sizeof(item), "%s[%zu]", name, i);
            print_value(item, member, indent);
        }
    } else if (json_is_string(value)) {
        printf("%*s%s: %s\n", indent, "", name, json_string_value(value));
    } else if (json_is_real(value)) {
        printf("%*s%s: %.3f\n", indent, "", name, json_real_value(value));
    } else if (json_is_integer(value)) {
        printf("%*s%s: %lld\n", indent, "", name, (long long)json_integer_value(value));
    }
}

static void print_answer(struct monitor *m, const char *line, size_t len)
{
    json_t *root = json_loadb(line, len, 0, NULL);
    json_t *error = json_object_get(root, "error");
    if (error)
        printf("monitor: %s\n", json_string_value(json_object_get(error, "message")));
    else if (m->active)
        print_value("", json_object_get(root, "result"), 0);
    json_decref(root);
    if (m->active)
        prompt();
}

bool monitor_readable(struct monitor *m)
{
    ssize_t n = recv(m->control_fd, m->answer + m->have, sizeof(m->answer) - m->have, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n <= 0)
        return false;
    m->have += (size_t)n;
    char *newline;
    while ((newline = memchr(m->answer, '\n', m->have))) {
        size_t len = (size_t)(newline - m->answer);
        print_answer(m, m->answer, len);
        m->have -= len + 1;
        memmove(m->answer, newline + 1, m->have);
    }
    if (m->have == sizeof(m->answer))
        m->have = 0; /* no answer of ours is that long */
    return true;
}

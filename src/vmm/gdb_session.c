/*
 * The protocol: framing, and a function for each packet that GDB needs of a stub. What is not known
 * is answered with an empty packet, as the protocol wants.
 */
#include "vmm/gdb_session.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/gdb_registers.h"

#define PACKET_MAX 0x4000u /* bytes between $ and # */
#define MEMORY_MAX (PACKET_MAX / 2 - 64)
#define WATCH_MAX 4096u

/* Numbers of an "E" answer: errno's. */
#define E_BAD 22
#define E_FAULT 14

enum framing { IDLE, BODY, SUM1, SUM2 };

struct gdb_session {
    const struct gdb_target *target;
    char *description;
    unsigned cpu;      /* of the packets about registers and memory */
    unsigned stop_cpu; /* the one that stopped last */
    unsigned listed;   /* threads told so far */
    bool no_ack, swbreak, hwbreak, physical, over, ended;
    bool waiting; /* GDB waits for a stop */
    unsigned points;
    struct mull_debug_point point[MULL_DEBUG_POINTS];

    enum framing framing;
    size_t have;
    uint8_t sum, sum_told;
    char packet[PACKET_MAX + 1];

    size_t reply_len;
    char reply[PACKET_MAX + 8]; /* $...#xx */
};

/* ---- Answers ---- */

static void transmit(struct gdb_session *s)
{
    s->target->send(s->target->opaque, s->reply, s->reply_len);
}

static void answer_bytes(struct gdb_session *s, const char *bytes, size_t len)
{
    uint8_t sum = 0;

    if (len > PACKET_MAX)
        len = PACKET_MAX;
    s->reply[0] = '$';
    memcpy(s->reply + 1, bytes, len);
    for (size_t i = 0; i < len; i++)
        sum = (uint8_t)(sum + (uint8_t)bytes[i]);
    snprintf(s->reply + 1 + len, 4, "#%02x", sum);
    s->reply_len = len + 4;
    transmit(s);
}

__attribute__((format(printf, 2, 3))) static void answer(struct gdb_session *s, const char *format,
                                                         ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    answer_bytes(s, text, strlen(text));
}

static void ok_or_error(struct gdb_session *s, int ret)
{
    if (ret)
        answer(s, "E%02x", (unsigned)-ret & 0xff);
    else
        answer(s, "OK");
}

/* ---- Hexadecimal ---- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Read a number of at most 16 digits. @return false: there is none */
static bool number(const char **text, uint64_t *value)
{
    const char *p = *text;

    *value = 0;
    for (unsigned i = 0; i < 16 && hex_digit(*p) >= 0; i++, p++)
        *value = *value << 4 | (unsigned)hex_digit(*p);
    bool some = p != *text && hex_digit(*p) < 0;
    *text = p;
    return some;
}

static bool skip(const char **text, char c)
{
    if (**text != c)
        return false;
    ++*text;
    return true;
}

/* @return bytes read, at most @max */
static size_t bytes_from_hex(const char *text, uint8_t *bytes, size_t max)
{
    size_t n = 0;

    while (n < max && hex_digit(text[0]) >= 0 && hex_digit(text[1]) >= 0) {
        bytes[n++] = (uint8_t)(hex_digit(text[0]) << 4 | hex_digit(text[1]));
        text += 2;
    }
    return n;
}

static char *hex_of(char *to, const uint8_t *bytes, size_t len)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < len; i++) {
        *to++ = digits[bytes[i] >> 4];
        *to++ = digits[bytes[i] & 15];
    }
    *to = '\0';
    return to;
}

static void answer_text_in_hex(struct gdb_session *s, const char *text)
{
    char hex[2048];
    size_t len = strlen(text);

    if (len > sizeof(hex) / 2 - 1)
        len = sizeof(hex) / 2 - 1;
    hex_of(hex, (const uint8_t *)text, len);
    answer_bytes(s, hex, len * 2);
}

/* ---- Threads: vCPU n is thread n + 1 ---- */

enum { ALL_THREADS = -1 };

/* @return false: nonsense. *cpu: ALL_THREADS, or a vCPU that there is */
static bool thread(const struct gdb_session *s, const char **text, int *cpu)
{
    uint64_t n;

    if (!strncmp(*text, "-1", 2)) {
        *text += 2;
        *cpu = ALL_THREADS;
        return true;
    }
    if (!number(text, &n) || n > s->target->cpus(s->target->opaque))
        return false;
    *cpu = n ? (int)n - 1 : (int)s->stop_cpu; /* 0: any */
    return true;
}

static void set_thread(struct gdb_session *s, const char *args)
{
    bool general = *args == 'g';
    int cpu;

    if (*args)
        args++;
    if (!thread(s, &args, &cpu)) {
        ok_or_error(s, -E_BAD);
        return;
    }
    if (general && cpu != ALL_THREADS)
        s->cpu = (unsigned)cpu;
    answer(s, "OK");
}

static void thread_alive(struct gdb_session *s, const char *args)
{
    int cpu;

    ok_or_error(s, thread(s, &args, &cpu) ? 0 : -E_BAD);
}

static void list_threads(struct gdb_session *s)
{
    char list[MULL_MAX_CPUS * 4 + 2], *to = list;

    if (s->listed) {
        answer(s, "l");
        return;
    }
    for (; s->listed < s->target->cpus(s->target->opaque) && s->listed < MULL_MAX_CPUS; s->listed++)
        to += sprintf(to, "%c%x", s->listed ? ',' : 'm', s->listed + 1);
    answer_bytes(s, list, (size_t)(to - list));
}

static void thread_info(struct gdb_session *s, const char *args)
{
    static const char *const states[] = {"running", "halted", "waits for a start-up IPI",
                                         "shut down"};
    struct mull_cpu_state state;
    char text[64];
    int cpu;

    if (!thread(s, &args, &cpu) || cpu < 0 ||
        s->target->get(s->target->opaque, (unsigned)cpu, &state)) {
        ok_or_error(s, -E_BAD);
        return;
    }
    snprintf(text, sizeof(text), "vCPU %d (%s)", cpu, states[state.mp_state & 3]);
    answer_text_in_hex(s, text);
}

/* ---- Registers ---- */

static void read_registers(struct gdb_session *s)
{
    struct mull_cpu_state state;
    uint8_t bytes[GDB_REGISTER_BYTES];
    char text[PACKET_MAX], *to = text;

    if (s->target->get(s->target->opaque, s->cpu, &state)) {
        ok_or_error(s, -E_FAULT);
        return;
    }
    for (unsigned i = 0; i < gdb_register_count(); i++)
        to = hex_of(to, bytes, gdb_register_get(&state, i, bytes));
    answer_bytes(s, text, (size_t)(to - text));
}

/* Registers that cannot be written keep what they have. */
static void write_registers(struct gdb_session *s, const char *args)
{
    struct mull_cpu_state state;

    if (s->target->get(s->target->opaque, s->cpu, &state)) {
        ok_or_error(s, -E_FAULT);
        return;
    }
    for (unsigned i = 0; i < gdb_register_count(); i++) {
        uint8_t bytes[GDB_REGISTER_BYTES] = {0};
        unsigned size = gdb_register_size(i);

        if (bytes_from_hex(args, bytes, size) != size)
            break;
        args += 2 * size;
        gdb_register_set(&state, i, bytes);
    }
    ok_or_error(s, s->target->set(s->target->opaque, s->cpu, &state));
}

static void read_register(struct gdb_session *s, const char *args)
{
    struct mull_cpu_state state;
    uint8_t bytes[GDB_REGISTER_BYTES];
    char text[2 * GDB_REGISTER_BYTES + 1];
    uint64_t n;

    if (!number(&args, &n) || n >= gdb_register_count() ||
        s->target->get(s->target->opaque, s->cpu, &state)) {
        ok_or_error(s, -E_BAD);
        return;
    }
    hex_of(text, bytes, gdb_register_get(&state, (unsigned)n, bytes));
    answer(s, "%s", text);
}

static void write_register(struct gdb_session *s, const char *args)
{
    struct mull_cpu_state state;
    uint8_t bytes[GDB_REGISTER_BYTES] = {0};
    uint64_t n;

    if (!number(&args, &n) || n >= gdb_register_count() || !skip(&args, '=') ||
        bytes_from_hex(args, bytes, sizeof(bytes)) < gdb_register_size((unsigned)n) ||
        s->target->get(s->target->opaque, s->cpu, &state) ||
        !gdb_register_set(&state, (unsigned)n, bytes)) {
        ok_or_error(s, -E_BAD);
        return;
    }
    ok_or_error(s, s->target->set(s->target->opaque, s->cpu, &state));
}

/* ---- Memory ---- */

/* "ADDRESS,LENGTH" and, where @end is not 0, that character. */
static bool range(const char **args, uint64_t *address, uint64_t *len, char end)
{
    return number(args, address) && skip(args, ',') && number(args, len) &&
           (!end || skip(args, end));
}

static void read_memory(struct gdb_session *s, const char *args)
{
    static const size_t max = MEMORY_MAX;
    uint8_t bytes[MEMORY_MAX];
    char text[2 * MEMORY_MAX + 1];
    uint64_t address, len;

    if (!range(&args, &address, &len, '\0')) {
        ok_or_error(s, -E_BAD);
        return;
    }
    size_t got = s->target->read(s->target->opaque, s->cpu, address, s->physical, bytes,
                                 len < max ? (size_t)len : max);
    if (!got && len) {
        ok_or_error(s, -E_FAULT);
        return;
    }
    hex_of(text, bytes, got);
    answer_bytes(s, text, 2 * got);
}

static void store(struct gdb_session *s, uint64_t address, const uint8_t *bytes, size_t len)
{
    size_t done =
        len ? s->target->write(s->target->opaque, s->cpu, address, s->physical, bytes, len) : 0;

    ok_or_error(s, done == len ? 0 : -E_FAULT);
}

static void write_memory(struct gdb_session *s, const char *args)
{
    uint8_t bytes[PACKET_MAX / 2];
    uint64_t address, len;

    if (!range(&args, &address, &len, ':') || len > sizeof(bytes) ||
        bytes_from_hex(args, bytes, (size_t)len) != len) {
        ok_or_error(s, -E_BAD);
        return;
    }
    store(s, address, bytes, (size_t)len);
}

/* Binary: 7Dh escapes the byte behind it (E.1). */
static void write_memory_binary(struct gdb_session *s, const char *args)
{
    const char *end = s->packet + s->have;
    uint8_t bytes[PACKET_MAX];
    uint64_t address, len;
    size_t n = 0;

    if (!range(&args, &address, &len, ':') || len > sizeof(bytes)) {
        ok_or_error(s, -E_BAD);
        return;
    }
    while (n < len && args < end) {
        char c = *args++;
        if (c == 0x7d && args < end)
            c = (char)(*args++ ^ 0x20);
        bytes[n++] = (uint8_t)c;
    }
    if (n == len)
        store(s, address, bytes, n);
    else
        ok_or_error(s, -E_BAD);
}

/* ---- Breakpoints and watches ---- */

static bool point_of(const char *args, struct mull_debug_point *p)
{
    static const enum mull_debug_kind kinds[] = {MULL_DEBUG_EXEC, MULL_DEBUG_EXEC, MULL_DEBUG_WRITE,
                                                 MULL_DEBUG_READ, MULL_DEBUG_ACCESS};
    unsigned type = (unsigned)(*args - '0');
    uint64_t len;

    if (type > 4)
        return false;
    args++;
    *p = (struct mull_debug_point){.kind = kinds[type], .hardware = type != 0};
    if (!skip(&args, ',') || !range(&args, &p->address, &len, '\0'))
        return false;
    if (p->kind != MULL_DEBUG_EXEC && (!len || len > WATCH_MAX))
        return false;
    p->length = p->kind == MULL_DEBUG_EXEC ? 1 : (uint32_t)len;
    return true;
}

static int find_point(const struct gdb_session *s, const struct mull_debug_point *p)
{
    for (unsigned i = 0; i < s->points; i++) {
        const struct mull_debug_point *q = &s->point[i];
        if (p->kind == q->kind && p->hardware == q->hardware && p->address == q->address &&
            p->length == q->length)
            return (int)i;
    }
    return -1;
}

static void insert_point(struct gdb_session *s, const char *args)
{
    struct mull_debug_point p;

    if (!point_of(args, &p)) {
        if (*args > '4')
            answer(s, "%s", ""); /* a type of a later GDB */
        else
            ok_or_error(s, -E_BAD);
        return;
    }
    if (find_point(s, &p) >= 0) { /* idempotent (E.2) */
        answer(s, "OK");
        return;
    }
    if (s->points == MULL_DEBUG_POINTS) {
        ok_or_error(s, -ENOSPC);
        return;
    }
    s->point[s->points++] = p;
    int ret = s->target->check(s->target->opaque, s->point, s->points);
    if (ret)
        s->points--;
    ok_or_error(s, ret);
}

static void remove_point(struct gdb_session *s, const char *args)
{
    struct mull_debug_point p;

    if (!point_of(args, &p)) {
        ok_or_error(s, -E_BAD);
        return;
    }
    int i = find_point(s, &p);
    if (i >= 0)
        s->point[i] = s->point[--s->points];
    answer(s, "OK");
}

/* ---- Running ---- */

static void resume(struct gdb_session *s, const enum mull_debug_action *action)
{
    int ret = -EBUSY;

    s->waiting = true; /* it may stop before resume() returns */
    if (s->target->held(s->target->opaque))
        ret = s->target->resume(s->target->opaque, action, s->point, s->points);
    if (!ret)
        return;
    s->waiting = false;
    ok_or_error(s, ret);
}

static void all_hold(enum mull_debug_action action[MULL_MAX_CPUS])
{
    for (unsigned i = 0; i < MULL_MAX_CPUS; i++)
        action[i] = MULL_DEBUG_HOLD;
}

/* "vCont;ACTION[:THREAD]...": the first that names a thread is its. */
static void resume_some(struct gdb_session *s, const char *args)
{
    enum mull_debug_action action[MULL_MAX_CPUS];
    bool named[MULL_MAX_CPUS] = {false}, some = false;
    unsigned cpus = s->target->cpus(s->target->opaque);

    all_hold(action);
    while (skip(&args, ';')) {
        char what = *args;
        int cpu = ALL_THREADS;
        uint64_t signal;

        if (!what || !strchr("csCS", what))
            goto bad;
        args++;
        if ((what == 'C' || what == 'S') && !number(&args, &signal))
            goto bad;
        if (skip(&args, ':') && !thread(s, &args, &cpu))
            goto bad;
        for (unsigned i = 0; i < cpus && i < MULL_MAX_CPUS; i++) {
            if (named[i] || (cpu != ALL_THREADS && (unsigned)cpu != i))
                continue;
            named[i] = some = true;
            action[i] = what == 's' || what == 'S' ? MULL_DEBUG_STEP : MULL_DEBUG_RUN;
        }
    }
    if (some && !*args) {
        resume(s, action);
        return;
    }
bad:
    ok_or_error(s, -E_BAD);
}

/* "c", "s", "C", "S": [SIGNAL;][ADDRESS]. Signals mean nothing to a machine. */
static void resume_all(struct gdb_session *s, char what, const char *args)
{
    enum mull_debug_action action[MULL_MAX_CPUS];
    bool step = what == 's' || what == 'S';
    struct mull_cpu_state state;
    uint64_t value;

    if (what == 'C' || what == 'S') {
        number(&args, &value);
        skip(&args, ';');
    }
    if (number(&args, &value)) {
        if (s->target->get(s->target->opaque, s->cpu, &state)) {
            ok_or_error(s, -E_FAULT);
            return;
        }
        state.rip = value;
        if ((uint64_t)((int64_t)(value << 16) >> 16) != value ||
            s->target->set(s->target->opaque, s->cpu, &state)) {
            ok_or_error(s, -E_BAD);
            return;
        }
    }
    for (unsigned i = 0; i < MULL_MAX_CPUS; i++)
        action[i] = step ? MULL_DEBUG_HOLD : MULL_DEBUG_RUN;
    if (step)
        action[s->cpu] = MULL_DEBUG_STEP;
    resume(s, action);
}

static void tell_stop(struct gdb_session *s, unsigned signal, const struct mull_debug_hit *hit)
{
    static const char *const names[] = {"", "watch", "rwatch", "awatch"};
    char reason[64] = "";

    if (hit && !hit->step && hit->point.kind != MULL_DEBUG_EXEC)
        snprintf(reason, sizeof(reason), "%s:%llx;", names[hit->point.kind & 3],
                 (unsigned long long)hit->point.address);
    else if (hit && !hit->step && (hit->point.hardware ? s->hwbreak : s->swbreak))
        snprintf(reason, sizeof(reason), hit->point.hardware ? "hwbreak:;" : "swbreak:;");
    answer(s, "T%02xthread:%x;%s", signal, s->stop_cpu + 1, reason);
}

void gdb_session_stopped(struct gdb_session *s, unsigned cpu, const struct mull_debug_hit *hit)
{
    s->cpu = s->stop_cpu = cpu;
    if (!s->waiting)
        return;
    s->waiting = false;
    tell_stop(s, hit ? 5 : 2, hit); /* SIGTRAP, SIGINT */
}

void gdb_session_ended(struct gdb_session *s, unsigned status)
{
    if (s->waiting && !s->ended)
        answer(s, "W%02x", status & 0xff);
    s->waiting = false;
    s->ended = true;
}

/* ---- Queries ---- */

static void supported(struct gdb_session *s, const char *args)
{
    s->swbreak = strstr(args, "swbreak+");
    s->hwbreak = strstr(args, "hwbreak+");
    answer(s,
           "PacketSize=%x;qXfer:features:read+;vContSupported+;QStartNoAckMode+;swbreak+;hwbreak+",
           PACKET_MAX);
}

static void read_description(struct gdb_session *s, const char *args)
{
    uint64_t offset, len;

    if (!range(&args, &offset, &len, '\0')) {
        ok_or_error(s, -E_BAD);
        return;
    }
    size_t size = strlen(s->description);
    char text[PACKET_MAX];
    if (offset > size)
        offset = size;
    if (len > sizeof(text) - 1)
        len = sizeof(text) - 1;
    bool last = size - offset <= len;
    if (last)
        len = size - offset;
    text[0] = last ? 'l' : 'm';
    memcpy(text + 1, s->description + offset, (size_t)len); /* no character needs an escape */
    answer_bytes(s, text, (size_t)len + 1);
}

/* "monitor ..." */
static void command(struct gdb_session *s, const char *args)
{
    uint8_t bytes[128] = {0};
    const char *text = (const char *)bytes;

    bytes_from_hex(args, bytes, sizeof(bytes) - 1);
    if (!strcmp(text, "physical on") || !strcmp(text, "physical off")) {
        s->physical = !strcmp(text, "physical on");
        answer_text_in_hex(s, s->physical ? "memory addresses are physical now\n"
                                          : "memory addresses are linear now\n");
    } else {
        answer_text_in_hex(s, "monitor physical on|off: what addresses of memory mean\n");
    }
}

static const char *after(const char *text, const char *prefix)
{
    size_t len = strlen(prefix);

    return strncmp(text, prefix, len) ? NULL : text + len;
}

static void query(struct gdb_session *s, const char *p)
{
    const char *args;

    if ((args = after(p, "qSupported")))
        supported(s, args);
    else if (!strcmp(p, "qAttached"))
        answer(s, "1");
    else if (!strcmp(p, "qC"))
        answer(s, "QC%x", s->cpu + 1);
    else if (!strcmp(p, "qfThreadInfo")) {
        s->listed = 0;
        list_threads(s);
    } else if (!strcmp(p, "qsThreadInfo"))
        list_threads(s);
    else if ((args = after(p, "qThreadExtraInfo,")))
        thread_info(s, args);
    else if ((args = after(p, "qXfer:features:read:target.xml:")))
        read_description(s, args);
    else if ((args = after(p, "qRcmd,")))
        command(s, args);
    else if (!strcmp(p, "qqemu.PhyMemMode"))
        answer(s, "%d", s->physical);
    else if ((args = after(p, "Qqemu.PhyMemMode:"))) {
        s->physical = *args == '1';
        answer(s, "OK");
    } else if (!strcmp(p, "QStartNoAckMode")) {
        answer(s, "OK");
        s->no_ack = true;
    } else
        answer(s, "%s", "");
}

static void verbose(struct gdb_session *s, const char *p)
{
    const char *args;

    if (!strcmp(p, "vCont?")) {
        answer(s, "vCont;c;C;s;S");
    } else if ((args = after(p, "vCont"))) {
        resume_some(s, args);
    } else if (after(p, "vKill;")) {
        answer(s, "OK");
        s->over = true;
        s->target->kill(s->target->opaque);
    } else {
        answer(s, "%s", "");
    }
}

/* ---- Packets ---- */

static void packet(struct gdb_session *s)
{
    const char *args = s->packet + 1;

    switch (s->packet[0]) {
    case '?':
        if (s->ended)
            answer(s, "W00");
        else
            tell_stop(s, 5, NULL);
        break;
    case 'g':
        read_registers(s);
        break;
    case 'G':
        write_registers(s, args);
        break;
    case 'p':
        read_register(s, args);
        break;
    case 'P':
        write_register(s, args);
        break;
    case 'm':
        read_memory(s, args);
        break;
    case 'M':
        write_memory(s, args);
        break;
    case 'X':
        write_memory_binary(s, args);
        break;
    case 'c':
    case 'C':
    case 's':
    case 'S':
        resume_all(s, s->packet[0], args);
        break;
    case 'Z':
        insert_point(s, args);
        break;
    case 'z':
        remove_point(s, args);
        break;
    case 'H':
        set_thread(s, args);
        break;
    case 'T':
        thread_alive(s, args);
        break;
    case 'D':
        answer(s, "OK");
        s->over = true;
        break;
    case 'k':
        s->over = true;
        s->target->kill(s->target->opaque);
        break;
    case 'q':
    case 'Q':
        query(s, s->packet);
        break;
    case 'v':
        verbose(s, s->packet);
        break;
    default:
        answer(s, "%s", "");
    }
}

static void complete(struct gdb_session *s)
{
    bool good = s->sum == s->sum_told;

    s->packet[s->have] = '\0';
    if (!s->no_ack)
        s->target->send(s->target->opaque, good ? "+" : "-", 1);
    if (good || s->no_ack)
        packet(s);
}

/* ---- Framing (E.1) ---- */

static bool one_byte(struct gdb_session *s, char c)
{
    int digit = hex_digit(c);

    switch (s->framing) {
    case IDLE:
        if (c == '$') {
            s->framing = BODY;
            s->have = 0;
            s->sum = 0;
        } else if (c == 3) {
            s->target->interrupt(s->target->opaque);
        } else if (c == '-' && !s->no_ack && s->reply_len) {
            transmit(s);
        } else if (c != '+' && c != '-') {
            return false; /* not GDB: perhaps a browser was made to send something here */
        }
        return true;
    case BODY:
        if (c == '#') {
            s->framing = SUM1;
            return true;
        }
        if (s->have == PACKET_MAX)
            return false;
        s->packet[s->have++] = c;
        s->sum = (uint8_t)(s->sum + (uint8_t)c);
        return true;
    case SUM1:
    case SUM2:
        if (digit < 0)
            return false;
        if (s->framing == SUM1) {
            s->sum_told = (uint8_t)(digit << 4);
            s->framing = SUM2;
            return true;
        }
        s->sum_told |= (uint8_t)digit;
        s->framing = IDLE;
        complete(s);
        return true;
    }
    return false;
}

bool gdb_session_input(struct gdb_session *s, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len && !s->over; i++)
        if (!one_byte(s, bytes[i]))
            return false;
    return !s->over;
}

struct gdb_session *gdb_session_create(const struct gdb_target *target)
{
    struct gdb_session *s = calloc(1, sizeof(*s));

    if (!s)
        return NULL;
    s->target = target;
    s->description = gdb_target_description();
    if (!s->description) {
        free(s);
        return NULL;
    }
    return s;
}

void gdb_session_destroy(struct gdb_session *s)
{
    if (!s)
        return;
    free(s->description);
    free(s);
}

/*
 * Which engines there are, and which one a machine gets. "auto" does not believe that /dev/kvm
 * means hardware: it measures. Knows engines only through engine.h.
 */
#include "engine/engine.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Where a guest kernel runs slower than this on KVM, the translator is the better engine: real
 * hardware virtualization gives thousands. */
#define KVM_FAST_MIPS 200.0

const struct mull_engine *const mull_engines[] = {&mull_engine_kvm, &mull_engine_soft, NULL};

static const char *speed(char *buf, size_t size, double mips)
{
    if (mips < 10)
        snprintf(buf, size, "%.1f million", mips);
    else if (mips < 10000)
        snprintf(buf, size, "%.0f million", mips);
    else
        snprintf(buf, size, "%.0f billion", mips / 1000);
    return buf;
}

static const struct mull_engine *choose(char *why, size_t why_size, struct mull_error *err)
{
    struct mull_engine_report kvm = {0}, soft = {0};
    char number[32];

    mull_engine_kvm.probe(true, &kvm);
    if (kvm.available && kvm.kernel_mips >= KVM_FAST_MIPS) {
        snprintf(why, why_size, "engine kvm: /dev/kvm runs kernel code at %s instructions a second",
                 speed(number, sizeof(number), kvm.kernel_mips));
        return &mull_engine_kvm;
    }
    mull_engine_soft.probe(false, &soft);
    if (soft.available) {
        if (!kvm.available)
            snprintf(why, why_size, "engine soft: %s", kvm.why);
        else if (kvm.kernel_mips > 0)
            snprintf(why, why_size,
                     "engine soft: /dev/kvm runs kernel code at %s instructions a second "
                     "(hardware: >1000); pass --engine kvm to use it anyway",
                     speed(number, sizeof(number), kvm.kernel_mips));
        else
            snprintf(why, why_size,
                     "engine soft: /dev/kvm is there but its speed could not be measured (%s); "
                     "pass --engine kvm to use it anyway",
                     kvm.why);
        return &mull_engine_soft;
    }
    if (kvm.available) {
        snprintf(why, why_size, "engine kvm: the soft engine does not run here: %s", soft.why);
        return &mull_engine_kvm;
    }
    mull_fail(err, ENODEV, "no engine runs here: kvm: %s; soft: %s", kvm.why, soft.why);
    return NULL;
}

const struct mull_engine *mull_engine_find(const char *name, char *why, size_t why_size,
                                           struct mull_error *err)
{
    char unused[256];
    struct mull_engine_report report = {0};

    if (!why || !why_size) {
        why = unused;
        why_size = sizeof(unused);
    }
    why[0] = 0;
    if (!strcmp(name, "auto"))
        return choose(why, why_size, err);
    for (unsigned i = 0; mull_engines[i]; i++) {
        if (strcmp(mull_engines[i]->name, name))
            continue;
        mull_engines[i]->probe(false, &report);
        if (!report.available) {
            mull_fail(err, ENODEV, "engine %s: %s", name, report.why);
            return NULL;
        }
        snprintf(why, why_size, "engine %s: as asked", name);
        return mull_engines[i];
    }
    mull_fail(err, EINVAL, "engine %s: there is none of that name; use auto, soft or kvm", name);
    return NULL;
}

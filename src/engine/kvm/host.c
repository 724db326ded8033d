/*
 * /dev/kvm itself: opening it, asking what it can do, and the signal that gets a thread out of
 * KVM_RUN. Knows nothing of one machine.
 */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define KERNEL_NSIG_BYTES 8 /* the kernel's sigset_t, not the C library's */

static int open_failed(int code, struct mull_error *err)
{
    switch (code) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
        return mull_fail(err, code,
                         "/dev/kvm: there is none: the processor has no virtualization, the BIOS "
                         "or the cloud has it switched off, or `modprobe kvm_intel` (kvm_amd) is "
                         "missing; use --engine soft");
    case EACCES:
    case EPERM:
        return mull_fail(err, code,
                         "/dev/kvm: permission denied: join its group with `sudo usermod -aG kvm "
                         "$USER` and log in again; or use --engine soft");
    default:
        return mull_fail(err, code, "/dev/kvm: cannot open it: %s; use --engine soft",
                         strerror(code));
    }
}

static bool has(int fd, int capability)
{
    return ioctl(fd, KVM_CHECK_EXTENSION, capability) > 0;
}

int mull_kvm_open(struct mull_kvm_host *host, struct mull_error *err)
{
    static const struct {
        int capability;
        const char *name;
    } needed[] = {
        {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
        {KVM_CAP_SPLIT_IRQCHIP, "KVM_CAP_SPLIT_IRQCHIP"},
        {KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI"},
        {KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING"},
        {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
        {KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
        {KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
        {KVM_CAP_USER_NMI, "KVM_CAP_USER_NMI"},
        {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
    };
    int version, size;

    memset(host, 0, sizeof(*host));
    host->fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (host->fd < 0)
        return open_failed(errno, err);
    version = ioctl(host->fd, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION) {
        mull_kvm_close(host);
        return mull_fail(err, ENOTSUP, "/dev/kvm: speaks version %d, not %d; use --engine soft",
                         version, KVM_API_VERSION);
    }
    for (unsigned i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
        if (!has(host->fd, needed[i].capability)) {
            mull_kvm_close(host);
            return mull_fail(err, ENOTSUP,
                             "/dev/kvm: lacks %s: take Linux 4.12 or newer; or --engine soft",
                             needed[i].name);
        }
    }
    size = ioctl(host->fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (size < (int)sizeof(struct kvm_run)) {
        mull_kvm_close(host);
        return mull_fail(err, ENOTSUP, "/dev/kvm: struct kvm_run is only %d bytes", size);
    }
    host->run_size = (size_t)size;
    host->xcrs = has(host->fd, KVM_CAP_XCRS);
    host->xsave = has(host->fd, KVM_CAP_XSAVE);
    host->readonly_memory = has(host->fd, KVM_CAP_READONLY_MEM);
    host->tsc_control = has(host->fd, KVM_CAP_TSC_CONTROL);
    host->user_msrs = has(host->fd, KVM_CAP_X86_USER_SPACE_MSR);
    int controls = ioctl(host->fd, KVM_CHECK_EXTENSION, KVM_CAP_SET_GUEST_DEBUG2);
    host->debug_controls = controls > 0 ? (uint32_t)controls : 0;
    host->ioeventfd = has(host->fd, KVM_CAP_IOEVENTFD) &&
                      has(host->fd, KVM_CAP_IOEVENTFD_ANY_LENGTH);
    host->tsc_deadline = has(host->fd, KVM_CAP_TSC_DEADLINE_TIMER);
    size = ioctl(host->fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
    host->max_cpus = size > 0 ? (unsigned)size : 4; /* api.rst 4.7 KVM_CREATE_VCPU */
    return 0;
}

void mull_kvm_close(struct mull_kvm_host *host)
{
    if (host->fd >= 0)
        close(host->fd);
    host->fd = -1;
}

int mull_kvm_block_kick(int vcpu_fd, sigset_t *before)
{
    struct {
        struct kvm_signal_mask head;
        uint8_t bits[KERNEL_NSIG_BYTES];
    } mask;
    sigset_t kick, in_run;
    int r;

    sigemptyset(&kick);
    sigaddset(&kick, MULL_KVM_KICK);
    r = pthread_sigmask(SIG_BLOCK, &kick, before);
    if (r)
        return -r;
    in_run = *before;
    sigdelset(&in_run, MULL_KVM_KICK);
    mask.head.len = KERNEL_NSIG_BYTES;
    memcpy(mask.head.sigset, &in_run, KERNEL_NSIG_BYTES);
    if (ioctl(vcpu_fd, KVM_SET_SIGNAL_MASK, &mask.head)) {
        r = -errno;
        pthread_sigmask(SIG_SETMASK, before, NULL);
        return r;
    }
    return 0;
}

void mull_kvm_drain_kick(void)
{
    const struct timespec now = {0, 0};
    sigset_t kick;

    sigemptyset(&kick);
    sigaddset(&kick, MULL_KVM_KICK);
    while (sigtimedwait(&kick, NULL, &now) > 0)
        ;
}

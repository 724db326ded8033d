/*
 * The calls every network back end has in common. See netdev.h.
 */
#include "device/net/netdev.h"

int mull_netdev_send(struct mull_netdev *netdev, const struct iovec *iov, int niov, size_t len)
{
    return netdev->ops->send(netdev, iov, niov, len);
}

void mull_netdev_flush(struct mull_netdev *netdev)
{
    if (netdev->ops->flush)
        netdev->ops->flush(netdev);
}

void mull_netdev_attach(struct mull_netdev *netdev, const struct mull_netdev_frontend *frontend)
{
    netdev->ops->attach(netdev, frontend);
}

void mull_netdev_resume(struct mull_netdev *netdev)
{
    netdev->ops->resume(netdev);
}

void mull_netdev_set_offloads(struct mull_netdev *netdev, uint64_t guest_features)
{
    if (netdev->ops->set_offloads)
        netdev->ops->set_offloads(netdev, guest_features);
}

void mull_netdev_destroy(struct mull_netdev *netdev)
{
    if (netdev)
        netdev->ops->destroy(netdev);
}

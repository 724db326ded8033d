// Resource pools, and what a machine's resources are at first.
const GIB = 1024 ** 3;

const amount = (shares, reservation = 0, limit = null) => ({ shares, reservation, limit });
const poolAmount = (...rest) => ({ ...amount(...rest), expandable: true });
const diskAmount = (shares) => ({
  ...amount(shares),
  read_limit: null,
  write_limit: null,
  iops_limit: null,
  read_iops_limit: null,
  write_iops_limit: null,
});
const networkAmount = (shares) => ({ ...amount(shares), in_limit: null, out_limit: null });

export const RESOURCES = {
  cpu: amount('normal'),
  memory: amount('normal'),
  disk: diskAmount('normal'),
  network: networkAmount('normal'),
};

/** The pools there are, with ids made by `uuid`. */
export const makePools = (uuid) =>
  [
    { name: 'production', cpu: poolAmount('high', 800), memory: poolAmount('high', 64 * GIB) },
    {
      name: 'build',
      cpu: poolAmount('normal', 0, 1600),
      memory: poolAmount('normal', 0, 64 * GIB),
    },
    { name: 'lab', cpu: poolAmount('low', 0, 400), memory: poolAmount('low', 0, 16 * GIB) },
  ].map((p, i) => ({
    id: uuid(`pool ${p.name}`),
    parent: null,
    disk: diskAmount('normal'),
    network: networkAmount('normal'),
    pools: 0,
    machines: [212, 96, 18][i],
    ...p,
  }));

#!/usr/bin/env node
// Take the pictures of docs/portal.md: every page of the portal on its mock host, light and dark,
// desktop and phone.
//   scripts/portal-shots [--dist build/portal] [--out docs/images] [NAME...]
import { mkdirSync } from 'node:fs';
import { resolve } from 'node:path';
import { startMock } from '../portal/mock/server.mjs';
import { login, openBrowser } from '../tests/portal/browser.mjs';

const words = process.argv.slice(2);
function option(name, fallback) {
  const at = words.indexOf(`--${name}`);
  return at < 0 ? fallback : words.splice(at, 2)[1];
}
const dist = resolve(option('dist', 'build/portal/dist'));
const out = resolve(option('out', 'docs/images'));
const wanted = words;
mkdirSync(out, { recursive: true });

const DESKTOP = { width: 1440, height: 900 };
const PHONE = { width: 390, height: 844 };
// A host that can do all (`missing` of GET /host: src/api/rest/ops_host.c).
const mock = await startMock({ machines: 500, dist });
const machines = [...mock.api.machines.values()];
const machine = machines.find((m) => m.pending) ?? machines[0];
const at = (tab = '') => `#/machines/${machine.id}${tab && `/${tab}`}`;

const lab = () => mock.api.lists.networks.find((n) => n.name === 'lab');

async function newNetwork(page) {
  await page.getByRole('button', { name: 'New network' }).click();
  const dialog = page.locator('dialog');
  await dialog.getByRole('radio', { name: /^NAT/ }).click();
  await dialog.getByLabel('Name', { exact: true }).fill('backend');
  await dialog.getByLabel('Subnet', { exact: true }).fill('10.90.0.0/24');
  await dialog.getByRole('button', { name: 'Reserve an address' }).click();
  await dialog.getByLabel('Machine of reservation 1').fill('db-1');
  await dialog.getByLabel('Address of reservation 1').fill('10.90.0.50');
  await dialog.getByLabel('Name', { exact: true }).click();
}

async function wizard(page) {
  await page.getByRole('button', { name: 'New machine' }).first().click();
  await page
    .getByRole('radio', { name: /debian-12/ })
    .first()
    .click();
  await page.getByRole('button', { name: 'Next' }).click();
  await page.locator('dialog').getByLabel('Name').fill('web-501');
}
async function importing(page) {
  await page.getByRole('button', { name: 'Import' }).click();
  await page.locator('input[type=file]').setInputFiles({
    name: 'Gateway 4.2.ova',
    mimeType: 'application/octet-stream',
    buffer: Buffer.alloc(5e6),
  });
}
async function chosen(page) {
  for (const i of [1, 2, 4])
    await page.locator('.table-body [role=row]').nth(i).locator('input').click();
}
async function palette(page) {
  await page.keyboard.press('Control+k');
  await page.keyboard.type('db-1');
}
const pause = (ms) => (page) => page.waitForTimeout(ms);
const tasks = async (page) => {
  await page.getByRole('button', { name: 'Tasks', exact: true }).first().click();
};
const asking = async (page) => {
  await chosen(page);
  await page.locator('.bulk').getByRole('button', { name: 'Shut down' }).click();
};
const snapshots = (page) => page.getByRole('button', { name: 'Snapshots' }).first().click();

const SHOTS = [
  { name: 'login', path: '', anonymous: true },
  { name: 'overview', path: '#/' },
  { name: 'overview-dark', path: '#/', dark: true },
  { name: 'machines', path: '#/machines' },
  { name: 'machines-dark', path: '#/machines?q=tag%3Aprod', dark: true, act: chosen },
  { name: 'bulk', path: '#/machines', act: asking },
  { name: 'machine', path: at() },
  { name: 'machine-dark', path: at(), dark: true },
  {
    name: 'console-serial',
    path: at('console'),
    act: async (p) => {
      await p.getByRole('button', { name: 'Serial' }).click();
      await p.locator('.xterm-screen').waitFor();
      await p.waitForTimeout(800);
      await p.locator('.xterm-screen').click();
      await p.keyboard.type('df -h /\nuptime\n');
      await p.waitForTimeout(400);
    },
  },
  { name: 'console-vnc', path: at('console'), dark: true, act: pause(1500) },
  { name: 'hardware', path: at('hardware') },
  { name: 'resources', path: at('resources') },
  { name: 'disks', path: at('disks'), act: snapshots },
  { name: 'monitor', path: at('monitor'), dark: true },
  { name: 'permissions', path: at('permissions') },
  { name: 'create', path: '#/machines', act: wizard },
  { name: 'import', path: '#/machines', act: importing, dark: true },
  { name: 'images', path: '#/images' },
  { name: 'datastores', path: '#/datastores', act: tasks },
  { name: 'files', path: () => `#/datastores/${mock.api.lists.datastores[0].id}/images` },
  { name: 'networks', path: '#/networks' },
  { name: 'network', path: () => `#/networks/${lab().id}` },
  { name: 'network-machines', path: () => `#/networks/${lab().id}/machines`, dark: true },
  { name: 'network-settings', path: () => `#/networks/${lab().id}/settings` },
  { name: 'network-create', path: '#/networks', act: newNetwork },
  { name: 'pools', path: '#/pools' },
  { name: 'users', path: '#/access' },
  { name: 'events', path: '#/events' },
  { name: 'audit', path: '#/audit' },
  { name: 'settings', path: '#/settings', dark: true },
  { name: 'palette', path: '#/machines', act: palette },
  { name: 'phone-overview', path: '#/', phone: true },
  { name: 'phone-machines', path: '#/machines', phone: true, dark: true },
  { name: 'phone-machine', path: at(), phone: true },
];

const browser = await openBrowser();
for (const shot of SHOTS) {
  if (wanted.length && !wanted.includes(shot.name)) continue;
  const context = await browser.newContext({
    viewport: shot.phone ? PHONE : DESKTOP,
    deviceScaleFactor: shot.phone ? 1.5 : 1,
    colorScheme: shot.dark ? 'dark' : 'light',
    reducedMotion: 'reduce',
  });
  const page = await context.newPage();
  page.on('pageerror', (e) => console.error(shot.name, e.message));
  page.on(
    'console',
    (m) => m.type() === 'error' && !m.text().includes('401') && console.error(shot.name, m.text()),
  );
  await page.addInitScript(() => localStorage.setItem('mullion.folders', '["/prod","/prod/web"]'));
  if (shot.anonymous) await page.goto(mock.url);
  else {
    await login(page, mock.url);
    const path = typeof shot.path === 'function' ? shot.path() : shot.path;
    await page.goto(`${mock.url}/${path}`);
    await page.locator('main h1').waitFor();
    await page.waitForTimeout(500);
    await shot.act?.(page);
  }
  await page.waitForTimeout(500);
  await page.screenshot({ path: `${out}/portal-${shot.name}.png` });
  await context.close();
  console.log(`portal-${shot.name}.png`);
}
await browser.close();
await mock.close();

// Headless Chromium for the portal's tests and screenshots: playwright-core drives Debian's browser.
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { until } from './tap.mjs';

export const PORTAL = fileURLToPath(new URL('../../portal/', import.meta.url));
const require = createRequire(`${PORTAL}package.json`);
const { chromium } = require('playwright-core');

const PLACES = [
  process.env.CHROMIUM,
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
];

export function findChromium() {
  return PLACES.find((path) => path && existsSync(path)) ?? null;
}

export async function openBrowser() {
  const executablePath = findChromium();
  if (!executablePath) throw new Error('no chromium: scripts/setup test');
  return chromium.launch({
    executablePath,
    // Containers often lack what Chromium's own sandbox needs; what it shows here is ours.
    args: [
      '--no-sandbox',
      '--disable-dev-shm-usage',
      '--disable-gpu',
      '--font-render-hinting=none',
    ],
  });
}

const asked = new WeakMap();

/** Count what a page has asked of its host and not been told yet. */
export function watch(page) {
  const open = new Set();
  asked.set(page, open);
  page.on('request', (r) => r.resourceType() !== 'websocket' && open.add(r));
  for (const end of ['requestfinished', 'requestfailed']) page.on(end, (r) => open.delete(r));
}

/** What effects do happens behind a frame. */
const frames = (page) =>
  page.evaluate(
    () =>
      new Promise((done) =>
        requestAnimationFrame(() =>
          setTimeout(() => requestAnimationFrame(() => setTimeout(done))),
        ),
      ),
  );

/** Go to a place of the portal, and wait until a watched page shows it with all that it has asked for. */
export async function visit(page, url, path) {
  asked.get(page).clear(); // what the last place has asked for may never be told
  await page.goto(`${url.replace(/\/$/, '')}/#/${path}`);
  await page.locator(`main[data-path="/${path}"]`).waitFor();
  await frames(page);
  await until(`${path} to be answered`, () => asked.get(page).size === 0);
  await frames(page);
}

export async function login(page, url, user = 'admin', password = 'secret') {
  await page.goto(url);
  await page.getByLabel('User').fill(user);
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.locator('.shell').waitFor();
}

// Headless Chromium for the portal's tests and screenshots: playwright-core drives Debian's browser.
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

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

export async function login(page, url, user = 'admin', password = 'secret') {
  await page.goto(url);
  await page.getByLabel('User').fill(user);
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.locator('.shell').waitFor();
}

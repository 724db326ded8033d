import { useState } from 'preact/hooks';
import { patch } from '../api/client';
import type { Host } from '../api/types';
import { notifyProblem } from '../state/notices';
import { theme, type Theme } from '../state/preferences';
import { host, isAdministrator, loadHost, session } from '../state/store';
import { Badge, Facts, Page, Panel } from '../ui/bits';
import { Button } from '../ui/Button';
import { CheckField, TextField } from '../ui/Field';
import { FormDialog } from './FormDialog';

const THEMES: [Theme, string][] = [
  ['auto', 'As the system'],
  ['light', 'Light'],
  ['dark', 'Dark'],
];

function PasswordDialog({ onClose }: { onClose(): void }) {
  const [current, setCurrent] = useState('');
  const [next, setNext] = useState('');
  return (
    <FormDialog
      title="Change password"
      action="Change"
      ready={next.length > 0 && current.length > 0}
      fields={['/password', '/current_password']}
      onClose={onClose}
      send={() =>
        patch(`/users/${encodeURIComponent(session.value!.user)}`, {
          password: next,
          current_password: current,
        })
      }
    >
      {(at) => (
        <>
          <TextField
            label="Current password"
            type="password"
            autoComplete="current-password"
            value={current}
            onInput={setCurrent}
            error={at('/current_password')}
            autoFocus
          />
          <TextField
            label="New password"
            type="password"
            autoComplete="new-password"
            value={next}
            onInput={setNext}
            error={at('/password')}
          />
        </>
      )}
    </FormDialog>
  );
}

function HostSettings({ host: h }: { host: Host }) {
  const [name, setName] = useState(h.name);
  const change = async (part: { name?: string; autostart?: boolean }): Promise<void> => {
    try {
      await patch('/host', part);
      await loadHost();
    } catch (error) {
      notifyProblem('The host was not changed', error);
    }
  };
  return (
    <Panel title="Host">
      <form
        class="stack"
        onSubmit={(e) => {
          e.preventDefault();
          void change({ name });
        }}
      >
        <div class="entry two">
          <TextField label="Name of the host" value={name} onInput={setName} />
          <Button type="submit" disabled={name === h.name || !name.trim()}>
            Rename
          </Button>
        </div>
        <CheckField
          label="Start machines with the host"
          hint="Those whose autostart is on, in their order."
          checked={h.autostart}
          onInput={(autostart) => void change({ autostart })}
        />
      </form>
    </Panel>
  );
}

export function Settings() {
  const [changing, setChanging] = useState(false);
  const h = host.value;
  return (
    <Page title="Settings">
      <div class="grid">
        <Panel title="Appearance">
          <div class="segments" role="group" aria-label="Theme">
            {THEMES.map(([value, label]) => (
              <button
                key={value}
                type="button"
                aria-pressed={theme.value === value}
                onClick={() => (theme.value = value)}
              >
                {label}
              </button>
            ))}
          </div>
        </Panel>
        <Panel title="Account">
          <Facts
            rows={[
              ['User', session.value?.user],
              ['Role', session.value?.role],
            ]}
          />
          <p class="after-facts">
            <Button onClick={() => setChanging(true)}>Change password</Button>
          </p>
        </Panel>
        {h && isAdministrator.value && <HostSettings key={h.name} host={h} />}
        {h && (
          <Panel title="Engines">
            <Facts
              rows={h.engines.map((e) => [
                e.name,
                <>
                  <Badge tone={e.available ? 'ok' : undefined}>
                    {e.available ? 'Available' : 'Not available'}
                  </Badge>{' '}
                  <span class="muted">{e.reason}</span>
                </>,
              ])}
            />
          </Panel>
        )}
      </div>
      {changing && <PasswordDialog onClose={() => setChanging(false)} />}
    </Page>
  );
}

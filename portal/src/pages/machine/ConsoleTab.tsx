// The machine's screen or serial line, with full screen, keys and screenshots around it.
import { useRef, useState } from 'preact/hooks';
import { lazy, Suspense } from 'preact/compat';
import { Camera, ClipboardPaste, Keyboard, Maximize2, PlugZap } from '../../ui/icons';
import { post, requestRaw } from '../../api/client';
import { dateTime } from '../../lib/format';
import { power } from '../../state/actions';
import { notify, notifyProblem } from '../../state/notices';
import { mayChange } from '../../state/store';
import { Banner, Empty } from '../../ui/bits';
import { Button } from '../../ui/Button';
import { Menu } from '../../ui/Menu';
import { download } from './export';
import type { TabProps } from './MachinePage';
import { PasteDialog } from './PasteDialog';

const VncConsole = lazy(() => import('./VncConsole'));
const SerialConsole = lazy(() => import('./SerialConsole'));

export type Line = 'connecting' | 'open' | 'closed';

const KEYS: [string, string][] = [
  ['Ctrl Alt Del', 'ctrl-alt-delete'],
  ['Ctrl Alt F1', 'ctrl-alt-f1'],
  ['Ctrl Alt F2', 'ctrl-alt-f2'],
  ['Ctrl Alt F7', 'ctrl-alt-f7'],
  ['Alt Tab', 'alt-tab'],
  ['Alt F4', 'alt-f4'],
  ['Esc', 'esc'],
  ['Print Screen', 'print'],
];

async function saveScreenshot(id: string, name: string): Promise<void> {
  try {
    const response = await requestRaw('GET', `/machines/${id}/screenshot`, {
      headers: { Accept: 'image/png' },
    });
    const url = URL.createObjectURL(await response.blob());
    download(url, `${name} ${dateTime(new Date().toISOString()).replaceAll(':', '-')}.png`);
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
    notify('Screenshot saved.', 'ok');
  } catch (error) {
    notifyProblem('No screenshot', error);
  }
}

export function ConsoleTab({ machine }: TabProps) {
  const [kind, setKind] = useState<'vnc' | 'serial'>('vnc');
  const [line, setLine] = useState<Line>('connecting');
  const [turn, setTurn] = useState(0);
  const [pasting, setPasting] = useState(false);
  const stage = useRef<HTMLDivElement>(null);
  const on =
    machine.state === 'running' || machine.state === 'paused' || machine.state === 'stopping';

  const sendKeys = async (keys: string): Promise<void> => {
    try {
      await post(`/machines/${machine.id}/keys`, { keys: [keys] });
    } catch (error) {
      notifyProblem('The keys were not sent', error);
    }
  };
  if (!mayChange.value)
    return <Banner tone="info">Your role lets you see this machine, not use its console.</Banner>;
  if (!on)
    return (
      <div class="console-stage off">
        <Empty icon={PlugZap} title={`${machine.name} is ${machine.state}`}>
          {(machine.state === 'stopped' || machine.state === 'crashed') && (
            <Button variant="primary" onClick={() => void power('start', [machine])}>
              Start it
            </Button>
          )}
        </Empty>
      </div>
    );
  const View = kind === 'vnc' ? VncConsole : SerialConsole;
  return (
    <div class="console">
      <div class="console-bar" role="toolbar" aria-label="Console">
        <div class="segments" role="group" aria-label="Console type">
          <button type="button" aria-pressed={kind === 'vnc'} onClick={() => setKind('vnc')}>
            Screen
          </button>
          <button type="button" aria-pressed={kind === 'serial'} onClick={() => setKind('serial')}>
            Serial
          </button>
        </div>
        <span class="muted" role="status">
          {{ connecting: 'Connecting…', open: 'Connected', closed: 'Not connected' }[line]}
        </span>
        <span class="actions">
          {line === 'closed' && (
            <Button small icon={PlugZap} onClick={() => setTurn(turn + 1)}>
              Connect again
            </Button>
          )}
          <Button small icon={Keyboard} onClick={() => void sendKeys('ctrl-alt-delete')}>
            Ctrl Alt Del
          </Button>
          <Menu
            label="Send keys"
            text="Send keys"
            small
            items={KEYS.map(([label, keys]) => ({ label, run: () => void sendKeys(keys) }))}
          />
          <Button small icon={ClipboardPaste} onClick={() => setPasting(true)}>
            Type text
          </Button>
          <Button small icon={Camera} onClick={() => void saveScreenshot(machine.id, machine.name)}>
            Screenshot
          </Button>

          <Button
            small
            icon={Maximize2}
            onClick={() => void stage.current?.requestFullscreen?.().catch(() => undefined)}
          >
            Full screen
          </Button>
        </span>
      </div>
      <div class="console-stage" ref={stage}>
        <Suspense fallback={<p class="muted">Loading…</p>}>
          <View key={`${kind}-${turn}`} id={machine.id} name={machine.name} onLine={setLine} />
        </Suspense>
      </div>
      {pasting && <PasteDialog id={machine.id} onClose={() => setPasting(false)} />}
    </div>
  );
}

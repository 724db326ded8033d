import { useState } from 'preact/hooks';
import { allTags } from '../lib/tree';
import { filterMachines } from '../lib/query';
import { route } from '../lib/router';
import { treeBy } from '../state/preferences';
import { has, machineList, pools } from '../state/store';
import { useCollection } from '../pages/use-loaded';
import { InventoryTree } from './InventoryTree';
import { PLACES } from './nav';
import { Search } from '../ui/icons';

function Places() {
  const here = `#/${route.value.segments[0] ?? ''}`;
  return (
    <nav aria-label="Places" class="places">
      {PLACES.filter((p) => p.shown()).map(({ href, label, icon: Icon }) => (
        <a key={href} href={href} aria-current={href === here ? 'page' : undefined} title={label}>
          <Icon size={16} aria-hidden="true" />
          <span>{label}</span>
          {href === '#/machines' && machineList.value.length > 0 && (
            <span class="total">{machineList.value.length}</span>
          )}
        </a>
      ))}
    </nav>
  );
}

function Tags() {
  const tags = allTags(machineList.value);
  if (!tags.length) return null;
  return (
    <section class="tags" aria-label="Tags">
      <h2>Tags</h2>
      <div>
        {tags.slice(0, 24).map(([tag, n]) => (
          <a key={tag} class="tag" href={`#/machines?q=${encodeURIComponent(`tag:${tag}`)}`}>
            {tag}
            <span>{n}</span>
          </a>
        ))}
      </div>
    </section>
  );
}

/** What the tree is of; where there are no pools, folders are all there is. */
function TreeChoice() {
  return (
    <div class="tree-choice" role="group" aria-label="Tree by">
      {(['folder', 'pool'] as const).map((by) => (
        <button
          type="button"
          key={by}
          class={`chip${treeBy.value === by ? ' on' : ''}`}
          aria-pressed={treeBy.value === by}
          onClick={() => (treeBy.value = by)}
        >
          {by === 'folder' ? 'Folders' : 'Pools'}
        </button>
      ))}
    </div>
  );
}

export function Sidebar() {
  const [filter, setFilter] = useState('');
  const pooled = useCollection(pools).length > 0 && has('pools');
  const found = filterMachines(machineList.value, filter);
  return (
    <aside class="sidebar" aria-label="Inventory">
      <Places />
      <div class="inventory">
        <div class="search">
          <Search size={14} aria-hidden="true" />
          <input
            type="search"
            placeholder="Filter inventory"
            aria-label="Filter inventory"
            value={filter}
            onInput={(e) => setFilter(e.currentTarget.value)}
          />
        </div>
        {pooled && <TreeChoice />}
        <InventoryTree
          machines={found}
          expandAll={filter !== ''}
          by={pooled ? treeBy.value : 'folder'}
        />
      </div>
      <Tags />
    </aside>
  );
}

import { get } from '../../api/client';
import type { components } from '../../api/schema';
import type { Page as ListPage } from '../../api/types';
import { Badge, Banner, Panel } from '../../ui/bits';
import { useLoaded } from '../use-loaded';
import { RoleBadge } from './Users';

type RoleInfo = components['schemas']['Role'];

export function Roles() {
  const list = useLoaded(() => get<ListPage<RoleInfo> | RoleInfo[]>('/roles'), []);
  const roles = Array.isArray(list.value) ? list.value : (list.value?.items ?? []);
  return (
    <>
      {list.problem && <Banner tone="bad">{list.problem}</Banner>}
      <Panel title="What each role may do">
        <dl class="roles">
          {roles.map((role) => (
            <div key={role.name}>
              <dt>
                <RoleBadge role={role.name} />
              </dt>
              <dd>
                {role.permissions.length ? (
                  role.permissions.map((p) => <Badge key={p}>{p}</Badge>)
                ) : (
                  <span class="muted">Only what is granted</span>
                )}
              </dd>
            </div>
          ))}
        </dl>
      </Panel>
    </>
  );
}

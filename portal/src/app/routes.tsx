// Which page a path shows.
import { useEffect } from 'preact/hooks';
import { Compass } from '../ui/icons';
import { route } from '../lib/router';
import { host } from '../state/store';
import { Access } from '../pages/access/Access';
import { Audit } from '../pages/Audit';
import { Datastores } from '../pages/datastores/Datastores';
import { Events } from '../pages/Events';
import { Images } from '../pages/Images';
import { MachinePage } from '../pages/machine/MachinePage';
import { Machines } from '../pages/machines/Machines';
import { NetworkPage } from '../pages/networks/NetworkPage';
import { Networks } from '../pages/networks/Networks';
import { Overview } from '../pages/Overview';
import { Pools } from '../pages/Pools';
import { Settings } from '../pages/Settings';
import { Empty, Page } from '../ui/bits';

function pageOf(segments: string[]) {
  const [first, second, third] = segments;
  switch (first) {
    case undefined:
      return <Overview />;
    case 'machines':
      return second ? <MachinePage key={second} id={second} tab={third ?? ''} /> : <Machines />;
    case 'images':
      return <Images />;
    case 'datastores':
      return <Datastores id={second} path={segments.slice(2).join('/')} />;
    case 'networks':
      return second ? <NetworkPage key={second} id={second} tab={third ?? ''} /> : <Networks />;
    case 'pools':
      return <Pools />;
    case 'events':
      return <Events />;
    case 'access':
      return <Access tab={second ?? ''} />;
    case 'audit':
      return <Audit />;
    case 'settings':
      return <Settings />;
    default:
      return (
        <Page title="Not found">
          <Empty icon={Compass} title="There is nothing here">
            <a href="#/">Back to the overview</a>
          </Empty>
        </Page>
      );
  }
}

export function CurrentPage() {
  const { segments, path } = route.value;
  const name = host.value?.name;
  useEffect(() => {
    const heading = document.querySelector('main h1')?.textContent;
    document.title = [heading, name, 'Mullion'].filter(Boolean).join(' · ');
  }, [path, name]);
  return pageOf(segments);
}

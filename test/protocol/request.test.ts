// vhost-user, "Front-end message types" and "Back-end message types": numbers, names, fds and replies, written out a
// second time. Leaves out which protocol feature each request needs: that is the device's state.

import t from 'tap';
import {
  BackendRequest,
  FrontendRequest,
  frontendRequestName,
  frontendRequestSpec,
  isFrontendRequest,
} from '../../protocol/request.js';

const NAMES = [
  'GET_FEATURES SET_FEATURES SET_OWNER RESET_OWNER SET_MEM_TABLE SET_LOG_BASE SET_LOG_FD SET_VRING_NUM SET_VRING_ADDR',
  'SET_VRING_BASE GET_VRING_BASE SET_VRING_KICK SET_VRING_CALL SET_VRING_ERR GET_PROTOCOL_FEATURES',
  'SET_PROTOCOL_FEATURES GET_QUEUE_NUM SET_VRING_ENABLE SEND_RARP NET_SET_MTU SET_BACKEND_REQ_FD IOTLB_MSG',
  'SET_VRING_ENDIAN GET_CONFIG SET_CONFIG CREATE_CRYPTO_SESSION CLOSE_CRYPTO_SESSION POSTCOPY_ADVISE POSTCOPY_LISTEN',
  'POSTCOPY_END GET_INFLIGHT_FD SET_INFLIGHT_FD GPU_SET_SOCKET RESET_DEVICE VRING_KICK GET_MAX_MEM_SLOTS ADD_MEM_REG',
  'REM_MEM_REG SET_STATUS GET_STATUS GET_SHARED_OBJECT SET_DEVICE_STATE_FD CHECK_DEVICE_STATE GET_SHMEM_CONFIG',
]
  .join(' ')
  .split(' ');
const NUMBERS = NAMES.map((_, index) => index + 1);

const WITH_ONE_FD = [6, 7, 12, 13, 14, 21, 32, 33, 37, 38, 42];
const WITH_OWN_REPLY = [1, 6, 11, 15, 17, 22, 24, 26, 28, 30, 31, 36, 40, 41, 42, 43, 44];

t.test('44 front-end requests by number and name', (t) => {
  t.strictSame(Object.values(FrontendRequest), NUMBERS);
  t.strictSame(NUMBERS.map(frontendRequestName), NAMES);
  t.equal(FrontendRequest.SetMemTable, 5);
  t.equal(FrontendRequest.GetShmemConfig, 44);
  t.end();
});

t.test('file descriptors and replies', (t) => {
  const specs = NUMBERS.map((request) => ({ request, spec: frontendRequestSpec(request) }));
  const having = (wanted: unknown): number[] =>
    specs.filter(({ spec }) => spec?.maxFds === wanted).map(({ request }) => request);
  t.strictSame(having(1), WITH_ONE_FD);
  t.strictSame(having('per-region'), [5]);
  t.equal(having(0).length, 44 - WITH_ONE_FD.length - 1);
  const replying = specs.filter(({ spec }) => spec?.ownReply === true).map(({ request }) => request);
  t.strictSame(replying, WITH_OWN_REPLY);
  t.end();
});

t.test('a number that is no request', (t) => {
  for (const request of [0, 45, -1, 1.5, Number.NaN, 2 ** 32 + 1]) {
    t.equal(isFrontendRequest(request), false, `${request}`);
    t.equal(frontendRequestSpec(request), undefined, `${request}`);
    t.equal(frontendRequestName(request), `request ${request}`);
  }
  t.end();
});

t.test('back-end requests by number', (t) => {
  t.strictSame(
    { ...BackendRequest },
    {
      IotlbMsg: 1,
      ConfigChangeMsg: 2,
      VringHostNotifierMsg: 3,
      VringCall: 4,
      VringErr: 5,
      SharedObjectAdd: 6,
      SharedObjectRemove: 7,
      SharedObjectLookup: 8,
      ShmemMap: 9,
      ShmemUnmap: 10,
    },
  );
  t.end();
});

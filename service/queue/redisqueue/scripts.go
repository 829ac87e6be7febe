package redisqueue

import "github.com/redis/go-redis/v9"

// A task is one hash (see taskKey) with the fields
//
//	msg      the queue.Message as JSON
//	attempt  its Attempt, as the newest Enqueue said
//	stream   the route's stream, entry its id in there while the task waits or is leased
//	tries    deliveries of this attempt
//	token    fencing token of the newest delivery, worker who holds it
//	cancel   1 once cancel was asked
//	progress the newest progress as JSON
//	result   id of the result's entry in the results stream; set by finish, and then entry is gone
//
// Everything that must not be torn apart by a crash is one script. All times are the server's.

// enqueue puts a message out unless the same or a newer attempt is known, or a newer term. KEYS hash, stream, results, term; ARGV
// task, attempt, msg, term.
var enqueueScript = redis.NewScript(`
local term = tonumber(redis.call('GET', KEYS[4]) or '0')
if tonumber(ARGV[4]) < term then return 0 end
if tonumber(ARGV[4]) > term then redis.call('SET', KEYS[4], ARGV[4]) end
local old = redis.call('HGET', KEYS[1], 'attempt')
if old then
  if tonumber(old) >= tonumber(ARGV[2]) then return 0 end
  local stream = redis.call('HGET', KEYS[1], 'stream')
  local entry = redis.call('HGET', KEYS[1], 'entry')
  if entry then redis.call('XDEL', stream, entry) end
  local result = redis.call('HGET', KEYS[1], 'result')
  if result then redis.call('XDEL', KEYS[3], result) end
  redis.call('DEL', KEYS[1])
end
local id = redis.call('XADD', KEYS[2], '*', 'task', ARGV[1], 'attempt', ARGV[2])
redis.call('HSET', KEYS[1], 'attempt', ARGV[2], 'msg', ARGV[3], 'stream', KEYS[2], 'entry', id, 'tries', '0')
return 1
`)

// begin turns an entry that XREADGROUP or XAUTOCLAIM gave into a lease with the next token. An entry that is no longer the
// task's own is dropped. KEYS hash, stream; ARGV group, worker, entry.
var beginScript = redis.NewScript(`
if redis.call('HGET', KEYS[1], 'entry') ~= ARGV[3] then
  redis.call('XACK', KEYS[2], ARGV[1], ARGV[3])
  redis.call('XDEL', KEYS[2], ARGV[3])
  return false
end
redis.call('XCLAIM', KEYS[2], ARGV[1], ARGV[2], '0', ARGV[3], 'JUSTID')
local tries = redis.call('HINCRBY', KEYS[1], 'tries', 1)
local attempt = tonumber(redis.call('HGET', KEYS[1], 'attempt'))
local token = string.format('%.0f', attempt * 1048576 + tries)
redis.call('HSET', KEYS[1], 'token', token, 'worker', ARGV[2])
return {redis.call('HGET', KEYS[1], 'msg'), token, redis.call('HGET', KEYS[1], 'cancel') or '0'}
`)

// giveBack makes an entry that a reader took but does not want available to every blocked reader at once: it goes to the end
// of its stream as a new entry. KEYS hash, stream; ARGV group, entry, task.
var giveBackScript = redis.NewScript(`
redis.call('XACK', KEYS[2], ARGV[1], ARGV[2])
redis.call('XDEL', KEYS[2], ARGV[2])
if redis.call('HGET', KEYS[1], 'entry') ~= ARGV[2] then return 0 end
local id = redis.call('XADD', KEYS[2], '*', 'task', ARGV[3], 'attempt', redis.call('HGET', KEYS[1], 'attempt'))
redis.call('HSET', KEYS[1], 'entry', id)
return 1
`)

// renew keeps a lease: it checks the token, then resets the entry's idle time. It returns -1 for a lost lease, else whether
// cancel was asked. KEYS hash; ARGV group, token, progress (” leaves the old one).
var renewScript = redis.NewScript(`
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[2] then return -1 end
local entry = redis.call('HGET', KEYS[1], 'entry')
if not entry then return -1 end
redis.call('XCLAIM', redis.call('HGET', KEYS[1], 'stream'), ARGV[1], redis.call('HGET', KEYS[1], 'worker'), '0', entry, 'JUSTID')
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'progress', ARGV[3]) end
if redis.call('HGET', KEYS[1], 'cancel') == '1' then return 1 end
return 0
`)

// finish stores a result and drops the message. The same finish again is taken as done, for a caller that lost the answer.
// KEYS hash, results; ARGV group, token, result.
var finishScript = redis.NewScript(`
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[2] then return -1 end
local entry = redis.call('HGET', KEYS[1], 'entry')
if not entry then return 0 end
local stream = redis.call('HGET', KEYS[1], 'stream')
local id = redis.call('XADD', KEYS[2], '*', 'result', ARGV[3])
redis.call('XACK', stream, ARGV[1], entry)
redis.call('XDEL', stream, entry)
redis.call('HDEL', KEYS[1], 'entry')
redis.call('HSET', KEYS[1], 'result', id)
return 1
`)

// cancel flags a task if it is known. KEYS hash.
var cancelScript = redis.NewScript(`
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'cancel', '1')
return 1
`)

// acknowledge drops a saved result, and the task with it unless a newer attempt took its place. KEYS hash, results; ARGV
// token, entry of the result (” when the caller does not know it).
var acknowledgeScript = redis.NewScript(`
if ARGV[2] ~= '' then redis.call('XDEL', KEYS[2], ARGV[2]) end
local result = redis.call('HGET', KEYS[1], 'result')
if result and redis.call('HGET', KEYS[1], 'token') == ARGV[1] then
  redis.call('XDEL', KEYS[2], result)
  redis.call('DEL', KEYS[1])
end
return 1
`)

// known tells whether a task waits, is leased or has a result: its hash alone is not enough, for the stream may have been
// deleted under it. KEYS hash.
var knownScript = redis.NewScript(`
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
if redis.call('HEXISTS', KEYS[1], 'result') == 1 then return 1 end
local entry = redis.call('HGET', KEYS[1], 'entry')
if not entry then return 0 end
return #redis.call('XRANGE', redis.call('HGET', KEYS[1], 'stream'), entry, entry)
`)

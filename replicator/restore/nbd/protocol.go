// Package nbd speaks the Network Block Device protocol: a server that exports disks for reading, and a client for reading and
// writing what another server exports. Fixed newstyle handshake, structured replies, base:allocation.
//
// The server must never send a byte that its source did not vouch for: a read that fails is answered with EIO, whatever part
// of it could be read. Neither side trusts the lengths it is told.
//
// The protocol: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
package nbd

import "errors"

// Handshake.
const (
	magicInit   = 0x4e42444d41474943 // NBDMAGIC
	magicOption = 0x49484156454F5054 // IHAVEOPT
	magicReply  = 0x0003e889045565a9

	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1

	optExportName      = 1
	optAbort           = 2
	optList            = 3
	optInfo            = 6
	optGo              = 7
	optStructuredReply = 8
	optListMeta        = 9
	optSetMeta         = 10

	repAck         = 1
	repServer      = 2
	repInfo        = 3
	repMetaContext = 4
	repErrBit      = 1 << 31
	repErrUnsup    = repErrBit | 1
	repErrInvalid  = repErrBit | 3
	repErrUnknown  = repErrBit | 6
	repErrTooBig   = repErrBit | 9

	infoExport    = 0
	infoBlockSize = 3
)

// Transmission.
const (
	magicRequest    = 0x25609513
	magicSimple     = 0x67446698
	magicStructured = 0x668e33ef

	flagHas         = 1 << 0
	flagReadOnly    = 1 << 1
	flagFlush       = 1 << 2
	flagTrim        = 1 << 5
	flagWriteZeroes = 1 << 6
	flagMultiConn   = 1 << 8

	cmdRead        = 0
	cmdWrite       = 1
	cmdDisconnect  = 2
	cmdFlush       = 3
	cmdTrim        = 4
	cmdWriteZeroes = 6
	cmdBlockStatus = 7

	cmdFlagReqOne = 1 << 3

	replyDone = 1 << 0

	chunkNone        = 0
	chunkOffsetData  = 1
	chunkOffsetHole  = 2
	chunkBlockStatus = 5
	chunkErrorBit    = 1 << 15
	chunkError       = chunkErrorBit | 1
	chunkErrorOffset = chunkErrorBit | 2

	stateHole = 1 << 0
	stateZero = 1 << 1

	metaBase = "base:allocation"
)

// Errors on the wire.
const (
	errnoPerm     = 1
	errnoIO       = 5
	errnoInval    = 22
	errnoNoSpace  = 28
	errnoOverflow = 75
	errnoNotSup   = 95
	errnoShutdown = 108
)

const (
	maxOption  = 64 << 10 // longest option that is read; the longest legal one is a name of 4 KiB with queries
	maxName    = 4096     // longest export name, by the protocol
	maxRequest = 32 << 20 // longest read or write, by the protocol's default
)

var (
	// ErrProtocol says that the other side broke the protocol. The connection is closed.
	ErrProtocol = errors.New("nbd protocol violation")

	// ErrIO is the other side's answer that it could not read or write.
	ErrIO = errors.New("nbd server answered: input/output error")

	// ErrNoSpace is the other side's answer that its storage is full.
	ErrNoSpace = errors.New("nbd server answered: no space left")

	// ErrRefused is any other error that the other side answered.
	ErrRefused = errors.New("nbd server refused")

	// ErrClosed says that the connection is closed.
	ErrClosed = errors.New("nbd connection closed")
)

// Package main is etcd's own command, so that it can be built from the module proxy
// beside the other binaries with one pinned go.sum.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }

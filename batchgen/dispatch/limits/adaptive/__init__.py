"""Learns from replies how fast the server lets a job go. Each part can be read alone.

meter    what was sent and throttled, and the rates that follow from it
cubic    the growth curve after a throttle (RFC 9438)
noise    which throttles say something about a rate, and which do not
circuit  outages: open while the server is down, one probe per interval
limiter  connects the four; the only part that the rest of batchgen uses
"""

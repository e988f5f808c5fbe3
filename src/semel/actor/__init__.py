"""Actors: single-threaded owners of state, in OTP's terms."""

from semel.actor.server import ActorSpec, GenServer, MethodSpec, actor_spec, call, cast, info, method_spec

__all__ = ["ActorSpec", "GenServer", "MethodSpec", "actor_spec", "call", "cast", "info", "method_spec"]

"""Mutation testing: do `genoscan verify` and the tests notice small faults in the source?"""

#!/bin/sh
# Makes the component.
componentize-py -d wit -w {{kind}}-plugin componentize app -o {{wasm}}

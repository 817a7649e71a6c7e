"""The text side of the llama.cpp worker: pure, no I/O, no clock, no randomness.

How an answer uses it, in order:

    template = ChatTemplate(source, bos, eos, now=datetime.now)        # once per model; TemplateError
    check_tools(tools)                                                 # BadSchema(param, message): a 400
    prompt = template.render(messages, tools, tool_choice, parallel)   # TemplateError: a 400
    grammar = template.grammar(prompt, tools, tool_choice, parallel, response_format)    # Grammar or None; BadSchema
    parser = template.parser(prompt, tools, tool_choice, ids)          # StreamParser or None
    machine = OutputMachine(parser, stops)
    machine.push(piece) … machine.finish("stop")                       # deltas; the finish reason

Tokens whose text is in `template.family.special_texts` or `template.reasoning_marks` must reach the machine as text.
llama.cpp's grammar sampler ends the process when it is made to accept what its grammar refuses: a token is to be tried
before it is accepted (see `Grammar` for what a lazy one expects).
"""

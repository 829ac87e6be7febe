# trial.bin: a boot sector that does what every 64-bit kernel does first: protected mode, paging, long mode, and an exception
# that a handler takes. From there it prints "LB64" on COM1. Made with: as -o trial.o trial.s && ld -Ttext 0x7c00 --oformat binary -o trial.bin trial.o
.code16
.org 0
start:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7c00, %sp
    # page tables at 0x1000: PML4 -> PDPT (0x2000) -> PD (0x3000), one 2 MiB page
    movw $0x1000, %di
    movw $0x1800, %cx
    cld
    rep stosw
    movw $0x2003, 0x1000
    movw $0x3003, 0x2000
    movw $0x0083, 0x3000
    lgdt gdtr
    movl %cr4, %eax
    orl $0x20, %eax
    movl %eax, %cr4
    movl $0x1000, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    orl $0x80000001, %eax
    movl %eax, %cr0
    ljmp $0x08, $long
.code64
long:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %ss
    movl $0x7c00, %esp
    # an exception handler for #UD, to see that exceptions are delivered in 64-bit mode
    movl $handler, %eax
    movw %ax, 0x4060
    movw $0x08, 0x4062
    movw $0x8e00, 0x4064
    shrl $16, %eax
    movw %ax, 0x4066
    lidt idtr
    ud2
handler:
    movl $message, %esi
    movw $0x3fd, %dx
1:  inb %dx, %al
    testb $0x20, %al
    jz 1b
    lodsb
    testb %al, %al
    jz 2f
    movw $0x3f8, %dx
    outb %al, %dx
    movw $0x3fd, %dx
    jmp 1b
2:  hlt
    jmp 2b
message: .asciz "LB64\n"
.balign 8
gdt:
    .quad 0
    .quad 0x00af9a000000ffff
    .quad 0x00cf92000000ffff
gdtr:
    .word gdtr - gdt - 1
    .long gdt
idtr:
    .word 0xfff
    .quad 0x4000
.org 510
    .word 0xaa55
